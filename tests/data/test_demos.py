import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.faulty import WalkConfig
from tests.support.processes import wait_for_end
from wamrl.data.demos import DemoConfig, collect, load, save
from wamrl.data.episodes import _index_digest, load_spec
from wamrl.envs.point import PointConfig
from wamrl.runtime.files import sha256

ROOT = Path(__file__).parents[2]

ENV = PointConfig(image_size=16)
CONFIG = DemoConfig(env=ENV, episodes=4, n_workers=0)


@pytest.fixture(scope="module")
def episodes():
    return collect(CONFIG)


@pytest.fixture
def folder(episodes, tmp_path):
    save(episodes, ENV.build().spec, tmp_path / "demos")
    return tmp_path / "demos"


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for name, value in vars(a).items():
            other = getattr(b, name)
            assert type(value) is type(other) and np.array_equal(value, other), name
            assert not isinstance(value, np.ndarray) or value.dtype == other.dtype


def test_episodes_do_not_depend_on_the_number_of_processes(episodes):
    ticks = []
    assert_same(collect(replace(CONFIG, n_workers=2), ticks.append), episodes)
    assert ticks == [1] * 4


def test_an_episode_replays(episodes):
    """What was executed leads to the recorded frames;
    the labels are what the expert means in those states.
    """
    env = ENV.build()
    for episode, start in zip(episodes, CONFIG.starts, strict=True):
        assert episode.seed == start.seed
        env.reset(episode.seed)
        expert = env.expert()
        for step, action in enumerate(episode.executed):
            assert np.array_equal(env.render(), episode.frames[step])
            assert np.array_equal(expert.action(), episode.actions[step])
            result = env.step(action)
        assert np.array_equal(env.proprio(), episode.proprio[-1])
        assert result.terminated == episode.success and result.stages == episode.stages
    noise = np.concatenate([e.executed - e.actions for e in episodes])
    assert 0.1 < noise.std() < 0.35 and len({e.executed.tobytes() for e in episodes}) == 4


def test_failures_are_kept_and_marked_or_dropped():
    short = replace(CONFIG, env=replace(ENV, horizon=13), episodes=12)
    marks = [e.success for e in collect(short)]
    assert any(marks) and not all(marks)
    assert len(collect(replace(short, keep_failures=False))) == sum(marks)
    with pytest.raises(ValueError, match="failed in all 12"):
        collect(replace(short, env=replace(ENV, horizon=2), keep_failures=False))


def test_bad_configs_are_one_sentence():
    for change in (
        {"episodes": 0},
        {"noise": -1.0},
        {"noise": float("nan")},
        {"split": "test"},
        {"n_workers": -1},
    ):
        with pytest.raises(ValueError):
            collect(replace(CONFIG, **change))
    with pytest.raises(ValueError, match="^no such scene: choose another$"):
        collect(replace(CONFIG, env=WalkConfig(fault="build"), n_workers=1))
    with pytest.raises(ValueError, match="no scripted expert"):
        collect(replace(CONFIG, env=WalkConfig()))


def test_round_trip(episodes, folder):
    assert_same(load(folder, ENV.build().spec), episodes)
    assert load_spec(folder)["name"] == "point"
    assert [p.name for p in folder.parent.iterdir()] == ["demos"]


def test_failed_save_leaves_nothing_and_overwrites_nothing(episodes, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="exists already"):
        save(episodes[:1], ENV.build().spec, folder)
    assert_same(load(folder), episodes)
    monkeypatch.setattr("wamrl.data.episodes.RowsWriter", full)
    with pytest.raises(ValueError, match="No space left"):
        save(episodes, ENV.build().spec, folder.parent / "other")
    assert [p.name for p in folder.parent.iterdir()] == ["demos"]


def _sign(folder, **changes):
    """Digests that fit whatever lies there now, so that the deeper checks are reached."""
    index = json.loads((folder / "index.json").read_text()) | changes
    index["sha256_tensors"] = sha256(folder / "episodes.safetensors")
    index["sha256_index"] = _index_digest(index)
    (folder / "index.json").write_text(json.dumps(index))


def _edit_tensors(folder, change):
    tensors = load_file(folder / "episodes.safetensors")
    change(tensors)
    save_file(tensors, folder / "episodes.safetensors")
    _sign(folder)


def _flip(folder):
    path = folder / "episodes.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(folder, sign=False):
    path = folder / "episodes.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    if sign:
        _sign(folder)


def _edit(folder):
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"success": true', '"success": false'))


def _nan(tensors):
    tensors["actions"][3, 0] = np.nan


_FACTS = {"success": True, "stages": 1, "seed": 0, "text": ""}
DAMAGE = {
    "flipped bit": (_flip, "corrupt"),
    "truncated": (_truncate, "corrupt"),
    "truncated and signed": (lambda f: _truncate(f, sign=True), "not readable"),
    "no index": (lambda f: (f / "index.json").unlink(), "no demonstrations in"),
    "broken index": (lambda f: (f / "index.json").write_text("{"), "not readable"),
    "empty index": (lambda f: (f / "index.json").write_text(""), "not readable"),
    "edited index": (_edit, "index.json is corrupt"),
    "no tensors": (lambda f: (f / "episodes.safetensors").unlink(), "not readable"),
    "other version": (lambda f: _sign(f, version=99), "version 99"),
    "other format": (lambda f: _sign(f, format="zip"), "not a folder of demonstrations"),
    "no spec": (lambda f: _sign(f, spec={}), "incomplete"),
    "no episodes": (lambda f: _sign(f, episodes=[]), "no episodes"),
    "absurd length": (
        lambda f: _sign(f, episodes=[{"length": 10**15} | _FACTS]),
        "expected",
    ),
    "odd episode": (lambda f: _sign(f, episodes=[{"length": -1} | _FACTS]), "impossible episode"),
    "NaN": (lambda f: _edit_tensors(f, _nan), "NaN"),
    "other dtype": (
        lambda f: _edit_tensors(f, lambda t: t.update(frames=t["frames"].astype("f4"))),
        "float32",
    ),
    "missing column": (lambda f: _edit_tensors(f, lambda t: t.pop("executed")), "missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused_in_one_sentence(folder, kind):
    damage, text = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ValueError, match=text) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "wamrl demos" in str(caught.value)


def test_missing_folder_and_other_environment(folder, tmp_path):
    with pytest.raises(ValueError, match="there are no demonstrations"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="another environment .*image_hw"):
        load(folder, replace(ENV, image_size=32).build().spec)


RECORDER = """
from wamrl.data.demos import DemoConfig, collect
from wamrl.envs.point import PointConfig
cfg = DemoConfig(env=PointConfig(image_size=16), episodes=10_000, n_workers=2)
collect(cfg, lambda n: print(n, flush=True))
"""


def test_workers_import_no_torch_and_end_with_who_is_killed():
    recorder = subprocess.Popen([sys.executable, "-c", RECORDER], cwd=ROOT, stdout=subprocess.PIPE)
    recorder.stdout.readline()  # the first episode is there
    children = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()
    workers = [
        pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    loaded = [Path(f"/proc/{pid}/maps").read_text() for pid in workers]
    recorder.kill()
    recorder.wait()
    assert len(workers) == 2 and not any("libtorch" in maps for maps in loaded)
    wait_for_end(workers)
