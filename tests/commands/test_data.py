"""wamrl data convert | inspect | stats, from the command line."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import wamrl
from tests.support.lerobot_made import (
    change_features,
    edit_json,
    episode,
    make_foreign,
    rename_features,
    write_v21,
)
from wamrl.data.episodes import load_spec, save
from wamrl.data.keys import DataKeys
from wamrl.data.lerobot import inspect, open_lerobot, write
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
    assert code == 0 and "note: the dataset does not say which of 2 episodes succeeded" in out
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
            ("convert", tmp_path / "lerobot", tmp_path / "new", "--format", "lerobot", "--image"),
            "whole number",
        ),
        (("convert", tmp_path / "lerobot", run / "demos"), "exists already"),
    ):
        code, out = data(*args)
        meant = 2 if words.startswith("convert |") else 1
        assert code == meant and len(out.strip().splitlines()) == 1 and words in out, (args, out)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A LeRobotDataset of a robot with names, that does not say what succeeded."""
    write(
        tmp_path / "lerobot",
        [episode(5, n) for n in range(3)],
        views=("cam_high",),
        fps=12,
        video=False,
        robot_type="aloha",
        state_names=("x", "y", "z"),
        action_names=("dx", "dy"),
    )
    make_foreign(tmp_path / "lerobot")
    return tmp_path / "lerobot"


def test_what_a_set_says_of_itself_comes_along(foreign: Path, tmp_path: Path):
    code, out = data("convert", foreign, tmp_path / "store", "--rename", "cam_high=front")
    assert code == 0 and "they are unknown" in out, out
    code, out = data("convert", tmp_path / "store", tmp_path / "again", "--image")
    assert code == 0, out
    found = open_lerobot(tmp_path / "again")
    origin = open_dataset(foreign).origin
    assert found.views == ("front",) and found.fps == 12 and found.info.robot_type == "aloha"
    assert found.origin == origin and origin.state_names == ("x", "y", "z")
    assert [fact.success for fact in found.facts] == [None] * 3
    assert inspect(tmp_path / "again")["unknown"] == 3


def test_what_does_not_come_along_is_said(foreign: Path, tmp_path: Path):
    reward = {"dtype": "float32", "shape": [1]}
    change_features(foreign, lambda features: features.update(reward=reward))
    code, out = data("convert", foreign, tmp_path / "store")
    assert code == 0 and "note: these are not carried along: reward" in out


def test_a_set_that_needs_no_change_is_copied(tmp_path: Path):
    write(tmp_path / "video", [episode(5)], views=("top",), fps=10)
    code, out = data("convert", tmp_path / "video", tmp_path / "copy", "--format", "lerobot")
    assert code == 0 and "copied, since nothing changes" in out
    files = [p for p in (tmp_path / "video").rglob("*") if p.is_file()]
    assert len(files) > 4
    for file in files:
        assert (
            file.read_bytes()
            == (tmp_path / "copy" / file.relative_to(tmp_path / "video")).read_bytes()
        )
    code, out = data(
        "convert", tmp_path / "video", tmp_path / "png", "--format", "lerobot", "--image"
    )
    assert code == 0 and "wrote" in out
    (tmp_path / "video/secret").symlink_to("/etc/hostname")
    code, out = data("convert", tmp_path / "video", tmp_path / "no", "--format", "lerobot")
    assert code == 1 and "leads out of the folder" in out and not (tmp_path / "no").exists()


def test_keys_on_every_verb(foreign: Path, tmp_path: Path):
    rename_features(foreign, observation__state="state", action="actions")
    keys = ("--state-keys", "state", "--action-key", "actions", "--rename", "cam_high=front")
    code, out = data("inspect", foreign)
    assert code == 0 and "actions" in out and "choose --state-keys" in out, out
    code, out = data("inspect", foreign, *keys)
    assert code == 0 and "choose" not in out, out
    code, out = data("stats", foreign, *keys)
    assert code == 0 and "observation.images.front" in out, out
    code, out = data("convert", foreign, tmp_path / "store", *keys, "--views", "front")
    assert code == 0 and load_spec(tmp_path / "store")["views"] == ["front"], out
    code, out = data("stats", foreign)
    assert code == 1 and "choose --state-keys and --action-key from" in out


def test_odd_hdf5(tmp_path: Path):
    files = pytest.importorskip("tests.support.hdf5_files", exc_type=ImportError)
    path = files.renamed(tmp_path / "can.hdf5")
    code, out = data("inspect", path)
    assert code == 0 and "cannot be trained on as it is" in out and "--state-keys" in out
    assert "obs/robot0_eef_pos" in out and "12 x 16 x 3" in out
    keys = ("--state-keys", "robot0_eef_pos", "--action-key", "action", "--views", "agentview")
    code, out = data("convert", path, tmp_path / "set", "--fps", "20", "--image", *keys)
    assert code == 0 and "which of 3 episodes succeeded: they are unknown" in out, out
    assert "robot0_gripper_qpos" in out  # is left out
    found = open_lerobot(tmp_path / "set")
    assert found.views == ("agentview",) and found.proprio.shape == (15, 3)
    keys = (*keys, "--success-key", "won")
    assert data("inspect", path, *keys)[0] == 0
    assert [f.success for f in open_dataset(path, keys=WON).facts] == [True, True, False]


WON = DataKeys(state_keys=("robot0_eef_pos",), action_key="action", success_key="won")
