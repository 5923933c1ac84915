"""Row tables on disk: safetensors in both directions,
any order of rows, no more memory than what is asked for.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from wamrl.data.rows_file import RowsFile, RowsWriter

TABLES = {
    "frames": (np.uint8, (700, 3, 50)),
    "x": (np.float32, (40, 7)),
    "empty": (np.float32, (0, 2)),
}


def content() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: (255 * rng.random(shape)).astype(dtype) for name, (dtype, shape) in TABLES.items()
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.safetensors"
    with RowsWriter(path, TABLES) as file:
        for start in range(0, 700, 100):  # in turns, as episodes come
            file.append("frames", content()["frames"][start : start + 100])
            file.append("x", content()["x"][start // 10 : min(start // 10 + 10, 40)])
    return path


def test_safetensors_reads_what_we_write_and_we_read_what_it_writes(path, tmp_path):
    theirs = load_file(path)
    save_file(theirs, tmp_path / "theirs.safetensors")
    again = RowsFile(tmp_path / "theirs.safetensors")
    for name, array in content().items():
        assert np.array_equal(theirs[name], array) and theirs[name].dtype == array.dtype
        assert np.array_equal(again.all(name), array) and again.dtypes[name] == array.dtype


@given(st.lists(st.integers(0, 699), min_size=1, max_size=60))
def test_any_rows_in_any_order(path, rows):
    rows = np.array(rows)
    assert np.array_equal(RowsFile(path).take("frames", rows), content()["frames"][rows])


def test_a_table_that_is_not_filled_is_noticed(tmp_path):
    with pytest.raises(AssertionError), RowsWriter(tmp_path / "x", TABLES) as file:
        file.append("x", np.zeros((40, 7), np.float32))


def test_a_file_that_shrinks_is_an_error_and_not_a_crash(path, tmp_path):
    other = tmp_path / "rows.safetensors"
    other.write_bytes(path.read_bytes())
    file = RowsFile(other)
    with open(other, "r+b") as shrinking:
        shrinking.truncate(5000)
    with pytest.raises(ValueError, match="become shorter"):
        file.take("frames", np.array([699]))


STREAM = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from wamrl.data.clips import ClipDataset
from wamrl.data.recording import EpisodeInfo, Recording
from wamrl.data.episodes import open_store, save_recording

class Made(Recording):  # 24 episodes of 16 MB that exist only while they are looked at
    facts = [EpisodeInfo(length=999, success=True, stages=1, seed=i, text="t") for i in range(24)]
    proprio, actions = np.zeros((24_000, 2), np.float32), np.zeros((24 * 999, 2), np.float32)
    executed, views, image_hw = actions, ("front",), (73, 73)
    def frames(self, rows):
        out = np.zeros((len(rows), 1, 73, 73, 3), np.uint8)
        out[:, 0, 0, 0, 0] = rows % 251
        return out

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

folder = Path(sys.argv[1])
torch.set_num_threads(1)
before = peak()
spec = {"views": ["front"], "image_hw": [73, 73], "proprio_dim": 2, "action_dim": 2}
save_recording(Made(), spec, folder)
data, g = ClipDataset(open_store(folder), (0,), (4, 8), 8), torch.Generator().manual_seed(0)
for _ in range(100):
    clip = data.sample(32, g)
steps = torch.tensor([5, 999 + 7, 23_000])
rows = [5, 1000 + 7, 23_000 + 23]
assert data.at(steps).frames[:, 0, 0, 0, 0, 0].tolist() == [row % 251 for row in rows]
print(int(peak() - before), sum(f.stat().st_size for f in folder.iterdir()) >> 20)
"""


def test_a_dataset_larger_than_the_memory_that_is_used(tmp_path):
    """366 MB of frames are written and trained on; the process grows by a small part of that."""
    done = subprocess.run(
        [sys.executable, "-c", STREAM, tmp_path / "big"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    grown, size = map(int, done.stdout.split())
    assert size > 350 and grown < 100, f"{grown} MB for {size} MB on disk"
