import sys

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from tests.support.hdf5_faults import FAULTS, break_file  # noqa: E402
from tests.support.hdf5_files import libero, pictures, robomimic  # noqa: E402
from wamrl.data.hdf5.reader import open_hdf5  # noqa: E402
from wamrl.data.recording import Recording  # noqa: E402
from wamrl.runtime.images import resize  # noqa: E402


def test_robomimic_with_the_frame_after_the_last_action(tmp_path):
    recording = open_hdf5(robomimic(tmp_path / "a.hdf5"))
    assert (
        isinstance(recording, Recording) and len(recording) == 3 and recording.image_hw == (12, 16)
    )
    assert recording.views == ("agentview", "robot0_eye_in_hand")
    assert [f.length for f in recording.facts] == [4, 3, 5]
    assert all(f.success and f.stages == 1 and f.seed == -1 for f in recording.facts)
    assert {f.text for f in recording.facts} == {"pick place can"}
    assert recording.proprio.shape == (15, 9) and recording.actions.shape == (12, 7)
    assert recording.proprio.dtype == recording.actions.dtype == np.float32
    for number, episode in enumerate(recording.episodes()):
        n = len(episode.actions)
        want = np.stack([pictures(100 * number, n + 1), pictures(100 * number + 1, n + 1)], 1)
        assert np.array_equal(episode.frames, want)  # upright as they are
        assert np.array_equal(
            episode.proprio[:, :2], np.stack([np.full(n + 1, number), np.arange(n + 1)], 1)
        )
        assert np.allclose(episode.actions, np.random.default_rng(number).uniform(-1, 1, (n, 7)))
        assert np.array_equal(episode.executed, episode.actions)


def test_without_next_obs_the_last_action_goes_and_no_frame_is_made_up(tmp_path):
    recording = open_hdf5(robomimic(tmp_path / "a.hdf5", next_obs=False))
    assert [f.length for f in recording.facts] == [3, 2, 4] and recording.proprio.shape == (12, 9)
    episode = recording.episode(2)
    assert np.array_equal(episode.frames[:, 0], pictures(200, 6)[:5])
    assert np.allclose(episode.actions, np.random.default_rng(2).uniform(-1, 1, (5, 7))[:4])


@pytest.mark.parametrize("compress", [False, True])
def test_frames_by_row_in_any_order(tmp_path, compress):
    lengths = (4, 150, 5)
    recording = open_hdf5(robomimic(tmp_path / "a.hdf5", lengths, compress=compress))
    whole = np.concatenate([e.frames for e in recording.episodes()])
    rng = np.random.default_rng(0)
    for rows in (
        [],
        [0],
        [4, 5],
        [161, 4, 4, 0],
        rng.integers(0, len(whole), 300),
        np.arange(len(whole))[::-1],
    ):
        assert np.array_equal(
            recording.frames(np.array(rows, np.int64)), whole[np.array(rows, int)]
        )
    for rows in ([-1], [len(whole)]):
        with pytest.raises(IndexError):
            recording.frames(np.array(rows))


def test_quaternions_become_those_of_our_robosuite(tmp_path):
    from scipy.spatial.transform import Rotation

    recording = open_hdf5(robomimic(tmp_path / "a.hdf5"))
    with h5py.File(tmp_path / "a.hdf5") as file:
        body = Rotation.from_quat(file["data/demo_0/obs/robot0_eef_quat"][()])  # x, y, z, w
    ours = recording.episode(0).proprio[:4, 3:7]
    assert (ours[:, 1] + ours[:, 2] >= 0).all()
    tips = Rotation.from_quat(ours[:, [1, 2, 3, 0]])
    # measured: robosuite 1.5.2, Panda, eef_quat^-1 eef_quat_site
    mount = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert np.allclose(tips.as_matrix(), body.as_matrix() @ mount, atol=1e-6)
    recording.close()
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        for demo in file["data"].values():
            for part in ("obs", "next_obs"):
                demo[part]["robot0_eef_quat_site"] = demo[part]["robot0_eef_quat"][()]
    ours = open_hdf5(tmp_path / "a.hdf5").episode(0).proprio[:4, 3:7]
    assert np.allclose(
        Rotation.from_quat(ours[:, [1, 2, 3, 0]]).as_matrix(), body.as_matrix(), atol=1e-6
    )


def test_views_states_sizes_masks_and_texts_are_chosen(tmp_path):
    path = robomimic(tmp_path / "a.hdf5")
    recording = open_hdf5(
        path, views=("wrist", "front"), image_hw=(6, 8), state_keys=("object", "robot0_eef_pos")
    )
    assert recording.views == ("wrist", "front") and recording.proprio.shape == (15, 13)
    want = np.stack([resize(pictures(c, 5), (6, 8)) for c in (1, 0)], 1)
    assert np.array_equal(recording.episode(0).frames, want)
    assert open_hdf5(path, views=("agentview_image",)).views == ("agentview_image",)
    recording = open_hdf5(path, mask="train", text="put the can away")
    assert [f.length for f in recording.facts] == [4, 5] and recording.facts[
        0
    ].text == "put the can away"
    for views in (("left",), ("front", "front"), ()):
        with pytest.raises(ValueError, match="choose from agentview, robot0_eye_in_hand"):
            open_hdf5(path, views=views)
    with pytest.raises(ValueError, match="mask/valid is missing"):
        open_hdf5(path, mask="valid")
    with pytest.raises(ValueError, match="obs/joints is missing"):
        open_hdf5(path, state_keys=("joints",))


def test_episodes_are_sorted_by_number(tmp_path):
    recording = open_hdf5(
        robomimic(tmp_path / "a.hdf5", (2, 3, 4), names=("demo_10", "demo_9", "demo_100"))
    )
    assert [f.length for f in recording.facts] == [3, 2, 4]


def test_libero_is_turned_as_openvla_turns_it(tmp_path):
    recording = open_hdf5(libero(tmp_path / "a.hdf5"))
    assert recording.views == ("agentview", "eye_in_hand") and recording.proprio.shape == (7, 8)
    assert [(f.length, f.success, f.text) for f in recording.facts] == [
        (3, True, "open the top drawer"),
        (2, True, "open the top drawer"),
    ]
    episode = recording.episode(1)
    assert np.array_equal(episode.frames[:, 0], pictures(1, 3)[:, ::-1, ::-1])
    assert np.array_equal(episode.frames[:, 1], pictures(51, 3)[:, ::-1, ::-1])
    assert np.allclose(episode.proprio[2], [1, 2, 0, 3.1, 3.1, 3.1, 0.02, -0.02])
    # an observation shows what its own action led to
    assert episode.actions[:, 0].tolist() == [11, 12]
    upright = open_hdf5(libero(tmp_path / "b.hdf5", convention="opencv")).episode(0)
    assert np.array_equal(upright.frames[:, 0], pictures(0, 4)[:, :, ::-1])


def test_libero_regenerated_by_openvla(tmp_path):
    path = libero(tmp_path / "KITCHEN_SCENE10_close_the_top_drawer_demo.hdf5", attrs=False)
    recording = open_hdf5(path, views=("front", "wrist"))
    assert recording.facts[0].text == "close the top drawer"
    episode = recording.episode(1)
    assert episode.actions[:, 0].tolist() == [10, 11] and len(episode.frames) == 3
    assert np.array_equal(episode.frames[:, 0], pictures(1, 3)[:, ::-1, ::-1])


def test_failures_are_marked(tmp_path):
    path = robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_1/rewards"][:] = 0.4  # shaped, never reaches the goal
        del file["data/demo_2/rewards"]
    assert [f.success for f in open_hdf5(path).facts] == [True, False, True]
    assert open_hdf5(path).facts[1].stages == 0


@pytest.mark.parametrize("how", FAULTS)
def test_broken_and_hostile_files_are_refused_in_one_sentence(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    robomimic(tmp_path / "secret.hdf5")
    (tmp_path / "secret.bin").write_bytes(bytes(168))
    path = robomimic(tmp_path / "a.hdf5")
    break_file(path, how)
    with pytest.raises(ValueError, match=FAULTS[how]) as caught:
        open_hdf5(path, mask="train" if "mask" in how else "")
    assert "\n" not in str(caught.value) and ": " in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        open_hdf5(tmp_path / "nothing.hdf5")
    (tmp_path / "b.hdf5").write_bytes(b"not at all" * 100)
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        open_hdf5(tmp_path / "b.hdf5")
    whole = robomimic(tmp_path / "a.hdf5").read_bytes()
    for share in (0.3, 0.7, 0.99):
        (tmp_path / "c.hdf5").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match="truncated or broken"):
            open_hdf5(tmp_path / "c.hdf5")


def test_states_without_pictures_say_how_to_render_them(tmp_path):
    path = robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            for part in ("obs", "next_obs"):
                del demo[part]["agentview_image"], demo[part]["robot0_eye_in_hand_image"]
    with pytest.raises(
        ValueError, match="no pictures: render them first, with robomimic's dataset_states_to_obs"
    ):
        open_hdf5(path)


def test_flipped_bytes_never_crash_or_leak_another_error(tmp_path):
    whole = bytearray(robomimic(tmp_path / "a.hdf5", (3,), compress=True).read_bytes())
    rng = np.random.default_rng(0)
    for trial in range(40):
        broken = bytearray(whole)
        for place in rng.integers(0, len(broken), 20):
            broken[place] ^= int(rng.integers(1, 256))
        (tmp_path / "b.hdf5").write_bytes(broken)
        try:
            recording = open_hdf5(tmp_path / "b.hdf5")
            recording.frames(np.arange(4))
        except ValueError as error:
            assert "\n" not in str(error), trial


def test_a_missing_h5py_names_the_extra(tmp_path, monkeypatch):
    path = robomimic(tmp_path / "a.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[data\]'"):
        open_hdf5(path)
