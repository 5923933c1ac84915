"""ALOHA's recordings: a file for each episode, pictures as they are or as JPEGs."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.command_line import refused, wamrl
from tests.support.hdf5_files import aloha, smooth
from wamrl.data.keys import DataKeys
from wamrl.data.sources import kind, open_dataset

LENGTHS = (4, 3, 5)


@pytest.fixture(params=[False, True], ids=["raw", "jpeg"])
def jpeg(request) -> bool:
    return request.param


def test_what_is_read_is_what_was_written(tmp_path, jpeg):
    folder = aloha(tmp_path / "transfer_cube", (*LENGTHS, *[2] * 20), jpeg=jpeg)
    assert kind(folder) == "hdf5"
    recording = open_dataset(folder, keys=DataKeys(views=("cam_high",)))
    assert [fact.length for fact in recording.facts] == [3, 2, 4, *[1] * 20], "by number, not name"
    assert recording.views == ("cam_high",) and recording.image_hw == (48, 64)
    assert recording.proprio.shape == (4 + 3 + 5 + 40, 14)
    third = recording.episode(2)
    assert third.success is None and third.text == "transfer cube"
    assert np.array_equal(third.actions[:, 0], [20, 21, 22, 23])
    assert np.array_equal(third.proprio[:, :2], [[2, r] for r in range(5)])
    meant = np.stack([smooth(2, row, 0) for row in range(5)])[:, None].astype(int)
    assert np.abs(third.frames - meant).max() <= (4 if jpeg else 0), "red is red"
    rows = np.array([13, 0, 13, 51])
    assert np.array_equal(recording.frames(rows)[2], recording.frames(np.array([13]))[0])
    assert "observations/qvel" in recording.origin.others
    recording.close()


def test_other_names_and_one_file(tmp_path, jpeg):
    folder = aloha(tmp_path / "set", LENGTHS, jpeg=jpeg)
    keys = DataKeys(
        views=("wrist", "front"),
        rename=("cam_high=front", "cam_left_wrist=wrist"),
        state_keys=("qpos", "qvel"),
        success_key="won",
    )
    recording = open_dataset(folder, keys=keys, image_hw=(24, 32))
    assert recording.views == ("wrist", "front") and recording.proprio.shape[1] == 28
    assert [fact.success for fact in recording.facts] == [True, False, True]
    assert recording.frames(np.array([1])).shape == (1, 2, 24, 32, 3)
    assert recording.frames(np.array([1]))[0, 0, ..., 2].mean() > 90, "the wrist is the blue one"
    one = open_dataset(folder / "episode_1.hdf5", keys=keys, image_hw=(24, 32))
    assert len(one) == 1 and np.array_equal(one.proprio, recording.proprio[4:7])


def test_the_command_line(tmp_path, jpeg):
    folder = aloha(tmp_path / "set", LENGTHS, jpeg=jpeg)
    code, out, err = wamrl("data", "inspect", folder)
    assert (code, err) == (0, "")
    assert "observations/images/cam_high" in out and "unknown" in out and "14" in out
    words = ("--views", "cam_high", "--rename", "cam_high=front", "--fps", "50", "--image")
    code, out, err = wamrl("data", "convert", folder, tmp_path / "out", *words)
    assert code == 0, err
    assert "not carried along: observations/images/cam_left_wrist, observations/qvel" in out
    made = open_dataset(tmp_path / "out")
    there = open_dataset(folder, keys=DataKeys(views=("cam_high",)))
    assert made.views == ("front",) and np.array_equal(made.actions, there.actions)
    assert np.array_equal(made.frames(np.arange(5)), there.frames(np.arange(5)))
    assert made.facts[0].success is None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: f.pop("action"), "episode_1.hdf5:/action is missing or no dataset"),
        (lambda f: f.pop("observations"), "a folder of HDF5 files is read as ALOHA's"),
        (lambda f: f["observations/qpos"].__setitem__((2, 0), np.nan), "NaN or infinity, first in"),
        (
            lambda f: f["observations/images/cam_high"].__setitem__((1, slice(0, 9)), 0),
            "picture 1 of cam_high is not readable",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, spoil, sentence):
    folder = aloha(tmp_path / "set", LENGTHS, jpeg=True)
    with h5py.File(folder / "episode_1.hdf5", "a") as file:
        spoil(file)
    words = ("data", "convert", folder, tmp_path / "out", "--fps", "50", "--image")
    assert sentence in refused(*words)
    assert not (tmp_path / "out").exists()


def test_no_file_outside_is_opened(tmp_path):
    folder = aloha(tmp_path / "set", (3,))
    away = aloha(tmp_path / "away", (3,))
    Path(folder / "episode_9.hdf5").symlink_to(away / "episode_0.hdf5")
    assert "is a link to elsewhere" in refused("data", "stats", folder)
    with h5py.File(folder / "episode_0.hdf5", "a") as file:
        del file["observations/images/cam_high"]
        link = h5py.ExternalLink(str(away / "episode_0.hdf5"), "/observations/images/cam_high")
        file["observations/images/cam_high"] = link
    (folder / "episode_9.hdf5").unlink()
    assert "is a link to elsewhere" in refused("data", "stats", folder, "--views", "cam_high")
    other = open_dataset(folder, keys=DataKeys(views=("cam_left_wrist",)))
    assert len(other) == 1, "a camera that nobody asks for is in nobody's way"
