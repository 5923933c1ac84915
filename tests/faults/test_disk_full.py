"""A disk that is full, a real one of half a megabyte: one sentence with path and free space, and
what was saved before is whole.
"""

import contextlib
import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.command_line import POINT, refused, run_of
from wamrl.data.demos import collect, save
from wamrl.data.lerobot.writer import write
from wamrl.models.saved import save_wam
from wamrl.report.style import saved_figure
from wamrl.report.video import Film, side_by_side
from wamrl.runtime import checkpoint
from wamrl.runtime.files import write_text
from wamrl.runtime.log import Logger, new_run

ENV = tiny.ENV.build().spec
WORDS = r"cannot write {}.*No space left on device \(\d+\.\d MB are free there\); free space or"
SIZE_KB = 1024


@pytest.fixture
def small(tmp_path):
    """A folder on a file system of SIZE_KB."""
    if os.geteuid() != 0 or not Path("/sbin/mount").exists() and not Path("/bin/mount").exists():
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave_kb: int = 0) -> None:
    """Leave so much room, and not more."""
    stuffing = folder / "stuffing"
    with contextlib.suppress(OSError), open(stuffing, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(stuffing, stuffing.stat().st_size - 1024 * leave_kb)


def content(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "stuffing"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def big() -> dict:
    return {"w": torch.zeros(SIZE_KB * 256), "step": 2}


def video(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 1, 64, 64, 3)).astype(np.uint8)
    steps = tuple(range(1, 41))
    film = Film(executed=noise, imagined=noise, steps=steps, length=40, success=True)
    side_by_side(folder / "x.mp4", film)


def picture(folder: Path) -> None:
    with saved_figure(folder / "x.png", 4, 3) as drawn:
        drawn.subplots().imshow(np.random.default_rng(0).random((300, 300)))


def episodes():
    return collect(replace(tiny.CONFIG.demos("demo"), episodes=12, n_workers=0))


WRITERS = {
    "checkpoint": (lambda folder: checkpoint.save(folder / "x", big()), "x"),
    "step": (lambda folder: checkpoint.save_step(folder, 3, {}, big()), "checkpoints/step-0"),
    "model": (lambda folder: save_wam(tiny.MODEL, ENV, tiny.lively(), folder, "best"), ""),
    "text": (lambda folder: write_text(folder / "x.json", "x" * 1024 * SIZE_KB), "x.json"),
    "demonstrations": (lambda folder: save(episodes(), ENV, folder / "x"), "x"),
    "dataset": (
        lambda folder: write(folder / "x", episodes(), views=ENV.views, fps=10, video=False),
        "x",
    ),
    "video": (video, "x.mp4"),
    "figure": (picture, "x.png"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_writer_says_so_in_one_sentence(kind, small):
    write_it, name = WRITERS[kind]
    checkpoint.save(small / "old", {"step": 1})
    fill(small, leave_kb=12)
    before = content(small)
    with pytest.raises(ValueError, match=WORDS.format(small / name)) as caught:
        write_it(small)
    assert "\n" not in str(caught.value)
    assert content(small) == before and not list(small.rglob(".*.tmp"))


def test_an_old_checkpoint_outlives_a_disk_that_fills_while_it_is_replaced(small):
    checkpoint.save_named(small, "best", {"step": 1})
    fill(small, leave_kb=8)
    with pytest.raises(ValueError, match="No space left"):
        checkpoint.save_named(small, "best", {"wam": tiny.fresh().state_dict()})
    assert checkpoint.load(small / "checkpoints" / "best")["step"] == 1


def test_the_log_and_a_new_run(small):
    run = new_run(small, "quick", tiny.CONFIG)
    rows = {f"m/{i}": 1.0 for i in range(300)}
    with pytest.raises(ValueError, match=WORDS.format(run)):
        with Logger(run) as logger:
            fill(small)
            for step in range(9):
                logger.log(step, rows)
    fill(small)
    with pytest.raises(ValueError, match=WORDS.format(small)):
        new_run(small, "next", tiny.CONFIG)
    assert [p.name for p in small.iterdir() if p.is_dir()] == [run.name]


def test_a_command_ends_with_one_sentence(small, tmp_path):
    """Somewhere in the middle of a run; the demonstrations that it has recorded stay whole."""
    run = run_of(small, "demos", *POINT)
    fill(small, leave_kb=200)
    before = content(run)
    sentence = refused("sft", *POINT, "--data", run, "--out", small)
    assert "No space left on device" in sentence and str(small) in sentence
    assert content(run) == before
