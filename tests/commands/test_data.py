"""wamrl data convert | inspect | stats, from the command line."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import wamrl
from tests.support.lerobot_made import edit_json, episode, write_v21
from wamrl.data.episodes import load_spec, save
from wamrl.data.lerobot import open_lerobot, write
from wamrl.data.sources import open_dataset
from wamrl.envs.base import EnvSpec

SPEC = EnvSpec(
    name="made",
    instruction="task 0",
    views=("top",),
    image_hw=(16, 24),
    action_dim=2,
    proprio_dim=3,
    horizon=9,
)


def data(*args) -> tuple[int, str]:
    """Exit code and all output of `wamrl data ARGS`."""
    code, out, err = wamrl("data", *args)
    return code, out + err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with demonstrations."""
    (tmp_path / "run").mkdir()
    save([episode(4, 0), episode(6, 1)], SPEC, tmp_path / "run/demos")
    return tmp_path / "run"


def test_to_lerobot_and_back(run: Path, tmp_path: Path):
    code, out = data("convert", run, tmp_path / "lerobot", "--fps", "12", "--image")
    assert code == 0 and "2 episodes of 10 control steps" in out
    assert open_lerobot(tmp_path / "lerobot").fps == 12
    assert data("convert", tmp_path / "lerobot", tmp_path / "store")[0] == 0
    before, after = open_dataset(run / "demos"), open_dataset(tmp_path / "store")
    assert before.facts == after.facts and before.views == after.views
    for name in ("proprio", "actions", "executed"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    rows = np.arange(len(before.proprio))
    assert np.array_equal(before.frames(rows), after.frames(rows))
    spec = load_spec(tmp_path / "store")
    assert spec["views"] == ["top"] and spec["horizon"] == 6 and spec["name"] == "lerobot"
    assert data("convert", run, tmp_path / "copy", "--format", "wamrl")[0] == 0
    assert load_spec(tmp_path / "copy") == load_spec(run / "demos")


def test_v21_to_v30(tmp_path: Path):
    write_v21(tmp_path / "old", [episode(4, n, views=2) for n in range(2)], ("front", "wrist"))
    options = (
        "--format",
        "lerobot",
        "--views",
        "wrist",
        "--image-hw",
        "8",
        "12",
        "--codec",
        "h264",
    )
    code, out = data("convert", tmp_path / "old", tmp_path / "new", *options)
    assert code == 0 and "note: the dataset does not say which episodes succeeded" in out
    found = open_lerobot(tmp_path / "new")
    assert (
        found.views == ("wrist",)
        and found.image_hw == (8, 12)
        and found.fps == 10
        and found.info.robot_type == "made"
    )
    assert [f.length for f in found.facts] == [4, 4]


def test_inspect_and_stats(run: Path, tmp_path: Path):
    write(
        tmp_path / "lerobot",
        [episode(5, n) for n in range(3)],
        views=("top",),
        fps=10,
        robot_type="[bold]arm\x1b[0m",
    )
    code, out = data("inspect", tmp_path / "lerobot")
    assert (
        code == 0
        and "v3.0" in out
        and "observation.images.top: av1" in out
        and "[bold]arm?[0m" in out
    )
    code, out = data("inspect", run)
    assert code == 0 and "wamrl's own" in out and "16 x 24 x 3" in out
    for path in (run, tmp_path / "lerobot"):
        code, out = data("stats", path)
        assert code == 0 and "observation.state" in out and "q99" in out
    assert "images" not in data("stats", run, "--no-images")[1]


def test_hdf5_to_lerobot(tmp_path: Path):
    files = pytest.importorskip("tests.support.hdf5_files", exc_type=ImportError)
    path = files.robomimic(tmp_path / "can.hdf5")
    assert data("convert", path, tmp_path / "lerobot", "--fps", "20", "--image")[0] == 0
    before, after = open_dataset(path), open_dataset(tmp_path / "lerobot")
    assert (
        before.facts == after.facts
        and before.views == after.views
        and np.array_equal(before.proprio, after.proprio)
    )
    assert np.array_equal(before.frames(np.arange(9)), after.frames(np.arange(9)))
    assert "HDF5" in data("inspect", path)[1]


def test_bad_input_is_one_sentence(run: Path, tmp_path: Path):
    write(tmp_path / "lerobot", [episode(3)], views=("top",), fps=10)
    edit_json(tmp_path / "lerobot/meta/info.json", fps=10.5)
    for args, words in (
        ((), "convert | inspect | stats"),
        (("convart",), "convert | inspect | stats"),
        (("inspect", tmp_path / "none"), "no dataset"),
        (("convert", run, tmp_path / "new"), "--fps"),
        (("convert", run, tmp_path / "lerobot", "--fps", "9"), "exists already"),
        (("convert", run, tmp_path / "new", "--fps", "9", "--views", "top"), "--views"),
        (
            ("convert", tmp_path / "lerobot", tmp_path / "new", "--format", "lerobot"),
            "whole number",
        ),
        (("convert", tmp_path / "lerobot", run / "demos"), "exists already"),
    ):
        code, out = data(*args)
        assert code == 1 and len(out.strip().splitlines()) == 1 and words in out, (args, out)
