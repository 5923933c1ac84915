"""Sets as other people have them: other keys, features that nobody needs, gaps, pointers."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import wamrl
from tests.support.lerobot_made import (
    DATA,
    META,
    change_features,
    edit_json,
    edit_parquet,
    episode,
    make_foreign,
    pq,
    rename_features,
    take_out,
    write_v21,
)
from wamrl.data.keys import DataKeys
from wamrl.data.lerobot import inspect, open_lerobot, write
from wamrl.data.sources import open_dataset

CAMERA = "observation.images.top"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    write(tmp_path / "set", [episode(5, n) for n in range(4)], views=("top",), fps=10, video=False)
    make_foreign(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def plain(foreign: Path, tmp_path: Path):
    """The same set, whole."""
    shutil.copytree(foreign, tmp_path / "plain")
    return open_lerobot(tmp_path / "plain")


def same(one, two) -> bool:
    rows = np.arange(len(one.proprio))
    numbers = ("proprio", "actions", "executed")
    return np.array_equal(one.frames(rows), two.frames(rows)) and all(
        np.array_equal(getattr(one, name), getattr(two, name)) for name in numbers
    )


def test_keys_of_openpi(foreign: Path, plain):
    rename_features(
        foreign,
        observation__images__top="image",
        observation__state="state",
        action="actions",
        complementary_info__executed="sent",
    )
    with pytest.raises(ValueError, match=r"no feature 'observation.state': choose --state-keys"):
        open_dataset(foreign)
    keys = DataKeys(state_keys=("state",), action_key="actions", rename=("image=front",))
    found = open_dataset(foreign, keys=keys)
    assert found.views == ("front",) and np.array_equal(found.actions, plain.actions)
    assert np.array_equal(found.frames(np.arange(9)), plain.frames(np.arange(9)))
    assert np.array_equal(found.proprio, plain.proprio)
    assert open_dataset(foreign, views=("front",), keys=keys).views == ("front",)
    listed = inspect(foreign)
    assert {"image", "state", "actions", "sent"} <= set(listed["features"])
    assert listed["episodes"] == 4 and listed["tasks"] == {"task 0": 2, "task 1": 2}
    assert "choose --state-keys" in "".join(listed["notes"])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"rename": ("top",)}, "give OLD=NEW"),
        ({"rename": ("top=a", "top=b")}, "names a camera twice"),
        ({"rename": ("side=a",)}, "no camera 'side': choose from top"),
        ({"action_key": "actions"}, "no feature 'actions'"),
        ({"success_key": "won"}, "no feature 'won'"),
        ({"views": ("side",)}, "no camera 'side'"),
        ({"state_keys": (CAMERA,)}, "expected numbers"),
    ],
)
def test_keys_that_are_not_there(foreign: Path, keys: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        open_dataset(foreign, keys=DataKeys(**keys))


@pytest.mark.parametrize(
    "feature",
    [
        {"dtype": "image", "shape": [16, 24, 1], "names": ["height", "width", "channel"]},
        {"dtype": "video", "shape": [16, 24, 3], "info": {"is_depth_map": True}},
        {"dtype": "image", "shape": [16, 24]},
        {"dtype": "float32", "shape": []},
        {"dtype": "float32", "shape": [3, 4, 5]},
        {"dtype": "float32", "shape": ["n"]},
        {"dtype": "float32", "shape": [10**9]},
        {"dtype": "string", "shape": [1]},
        {"dtype": "audio"},
        3,
    ],
)
def test_a_feature_that_nobody_asks_for_is_in_nobodys_way(foreign: Path, plain, feature):
    change_features(foreign, lambda features: features.update(odd=feature))
    found = open_lerobot(foreign)
    assert same(found, plain) and found.origin.others == ("odd",)
    assert inspect(foreign)["views"] == ["top"]
    with pytest.raises(ValueError, match="odd"):
        open_lerobot(foreign, state_keys=("odd",))


def test_a_scalar_is_one_number(foreign: Path):
    change_features(foreign, lambda features: features["timestamp"].update(shape=[]))
    assert open_lerobot(foreign, state_keys=("timestamp",)).proprio.shape == (20, 1)


def test_a_camera_without_its_video_is_named_and_the_others_are_used(tmp_path: Path):
    two = [episode(5, n, views=2) for n in range(2)]
    write(tmp_path / "set", two, views=("top", "side"), fps=10)
    shutil.rmtree(tmp_path / "set/videos/observation.images.side")
    listed = inspect(tmp_path / "set")
    assert listed["views"] == ["top"] and listed["successes"] == 1
    assert any("side is left out" in note and "missing" in note for note in listed["notes"])
    assert open_lerobot(tmp_path / "set", views=("top",)).views == ("top",)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("number", [0, 2, 3])
def test_an_episode_that_was_taken_out_leaves_a_gap(tmp_path: Path, version: str, number: int):
    episodes = [episode(5, n) for n in range(4)]
    if version == "v2.1":
        write_v21(tmp_path / "set", episodes, ("top",), movie=False)
    else:
        write(tmp_path / "set", episodes, views=("top",), fps=10, video=False)
    before = list(open_lerobot(tmp_path / "set").episodes())
    take_out(tmp_path / "set", number)
    found = open_lerobot(tmp_path / "set")
    assert bool([n for n in found.notes if f"no episodes {number}:" in n]) == (number < 3)
    del before[number]
    for mine, other in zip(before, found.episodes(), strict=True):
        assert np.array_equal(mine.frames, other.frames) and mine.text == other.text
        assert np.array_equal(mine.proprio, other.proprio)
        assert np.array_equal(mine.actions, other.actions)


def test_counts_that_differ_say_what_to_correct(foreign: Path):
    edit_json(foreign / "meta/info.json", total_episodes=5)
    with pytest.raises(ValueError, match="correct total_episodes and total_frames") as caught:
        open_lerobot(foreign)
    assert "download" not in str(caught.value)


def test_unknown_success_stays_unknown(foreign: Path, tmp_path: Path):
    found = open_lerobot(foreign)
    assert [fact.success for fact in found.facts] == [None] * 4
    assert found.demonstrations == [0, 1, 2, 3]
    listed = inspect(foreign)
    assert (listed["successes"], listed["unknown"]) == (0, 4)
    again = tmp_path / "again"
    write(again, found.episodes(), views=found.views, fps=10, video=False)
    assert "next.success" not in inspect(again)["features"]
    assert [fact.success for fact in open_lerobot(again).facts] == [None] * 4
    mixed = [*list(found.episodes())[:1], episode(5, 1), episode(5, 2)]
    write(tmp_path / "mixed", mixed[::-1], views=("top",), fps=10, video=False)
    assert [f.success for f in open_lerobot(tmp_path / "mixed").facts] == [False, True, None]


def test_a_column_that_tells_success_reaches_one(foreign: Path):
    change_features(foreign, lambda f: f.update(reward={"dtype": "float32", "shape": [1]}))
    rewards = [0.0, 0.5] * 10
    rewards[7] = 1.0
    table = pq.read_table(foreign / DATA)
    pq.write_table(table.append_column("reward", [rewards]), foreign / DATA)
    found = open_lerobot(foreign, success="reward")
    assert [fact.success for fact in found.facts] == [False, True, False, False]


@pytest.mark.parametrize("file", ["meta/info.json", "meta/tasks.parquet", DATA, META])
def test_pointers_of_git_lfs_are_named(foreign: Path, file: str):
    (foreign / file).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    )
    with pytest.raises(ValueError, match="Git LFS pointer.*git lfs pull"):
        open_lerobot(foreign)


def test_a_video_that_is_a_pointer(tmp_path: Path):
    write(tmp_path / "set", [episode(5)], views=("top",), fps=10)
    video = tmp_path / f"set/videos/{CAMERA}/chunk-000/file-000.mp4"
    video.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="file-000.mp4 .*git lfs pull"):
        open_lerobot(tmp_path / "set").frames(np.arange(1))


def test_a_nan_names_its_row(foreign: Path):
    edit_parquet(foreign / DATA, action=lambda rows: [*rows[:7], [np.nan, 0.0], *rows[8:]])
    with pytest.raises(ValueError, match=r"file-000.parquet: action .* row 7 of the dataset"):
        open_lerobot(foreign)


def videos(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.mp4"))]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_film_is_not_encoded_again(version, tmp_path: Path):
    made = [episode(6, n) for n in range(3)]
    if version == "v2.1":
        write_v21(tmp_path / "set", made, ("top",))
    else:  # three episodes in one file
        write(tmp_path / "set", made, views=("top",), fps=10)
    words = ("--format", "lerobot", "--rename", "top=front")
    code, out, err = wamrl("data", "convert", tmp_path / "set", tmp_path / "new", *words)
    assert code == 0 and "videos copied as they are" in out, err
    assert videos(tmp_path / "new") == videos(tmp_path / "set") != []
    old = open_lerobot(tmp_path / "set")
    new = open_lerobot(tmp_path / "new")
    assert new.views == ("front",) and new.info.version == "v3.0" and same(old, new)
    assert [fact.length for fact in new.facts] == [fact.length for fact in old.facts]
    assert new.cameras[0].info == old.cameras[0].info
    words = (*words, "--crf", "40")
    code, out, err = wamrl("data", "convert", tmp_path / "set", tmp_path / "other", *words)
    assert code == 0 and "copied" not in out, err
    assert videos(tmp_path / "other") != videos(tmp_path / "set")
