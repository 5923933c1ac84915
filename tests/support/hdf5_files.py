"""Small HDF5 files as robomimic and LIBERO write them, with contents that one can recognise."""

import io
import json
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

ENV_ARGS = {"env_name": "PickPlaceCan", "type": 1, "env_kwargs": {"robots": ["Panda"]}}
PROBLEM = {
    "problem_name": "libero_tabletop_manipulation",
    "language_instruction": '"open the top drawer"',
}


def pictures(seed: int, rows: int, hw=(12, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *hw, 3), dtype=np.uint8)


def robomimic(path: Path, lengths=(4, 3, 5), *, next_obs=True, compress=False, names=None) -> Path:
    """Moments are counted: eef_pos is (episode, moment, 0); pictures(100 e + camera)[moment]."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        data.attrs["total"] = sum(lengths)
        for number, n in enumerate(lengths):
            demo = data.create_group(names[number] if names else f"demo_{number}")
            demo.attrs["num_samples"] = n
            demo["actions"] = np.random.default_rng(number).uniform(-1, 1, (n, 7))
            demo["rewards"], demo["dones"] = (
                np.eye(1, n, n - 1)[0],
                np.eye(1, n, n - 1, dtype=np.int64)[0],
            )
            demo["states"] = np.zeros((n, 32))
            moments = np.arange(n + 1.0)
            quaternion = np.random.default_rng(number).normal(size=(n + 1, 4))
            whole = {
                "robot0_eef_pos": np.stack([0 * moments + number, moments, 0 * moments], 1),
                "robot0_eef_quat": quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True),
                "robot0_gripper_qpos": np.stack([moments / 100, -moments / 100], 1),
                "agentview_image": pictures(100 * number, n + 1),
                "robot0_eye_in_hand_image": pictures(100 * number + 1, n + 1),
                "object": np.zeros((n + 1, 10)),
            }
            for key, values in whole.items():
                options = {"compression": "gzip"} if compress else {}
                demo.create_dataset(f"obs/{key}", data=values[:-1], **options)
                if next_obs:
                    demo.create_dataset(f"next_obs/{key}", data=values[1:], **options)
        file["mask/train"] = np.array([name for name in data if name != "demo_1"], dtype="S")
    return path


def libero(path: Path, lengths=(4, 3), *, attrs=True, convention="opengl") -> Path:
    """Row r: ee_pos is (episode, r, 0), actions are 10 e + r.
    `attrs=False`: as OpenVLA's regenerated files.
    """
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        if attrs:
            data.attrs["problem_info"], data.attrs["macros_image_convention"] = (
                json.dumps(PROBLEM),
                convention,
            )
            data.attrs["bddl_file_name"] = "libero/bddl_files/x.bddl"
            data.attrs["env_args"] = json.dumps(
                {"type": 1, "env_name": "Libero_Tabletop_Manipulation"}
            )
        for number, n in enumerate(lengths):
            demo, rows = data.create_group(f"demo_{number}"), np.arange(float(n))
            demo["actions"] = np.repeat(10 * number + rows[:, None], 7, 1)
            demo["rewards"] = demo["dones"] = np.eye(1, n, n - 1, dtype=np.uint8)[0]
            demo["robot_states"], demo["states"] = np.zeros((n, 9)), np.zeros((n, 79))
            demo["obs/ee_pos"] = np.stack([0 * rows + number, rows, 0 * rows], 1)
            demo["obs/ee_ori"] = np.full((n, 3), 3.1)
            demo["obs/ee_states"] = np.zeros((n, 6))
            demo["obs/gripper_states"] = np.stack([rows / 100, -rows / 100], 1)
            demo["obs/joint_states"] = np.zeros((n, 7))
            demo["obs/agentview_rgb"], demo["obs/eye_in_hand_rgb"] = (
                pictures(number, n),
                pictures(50 + number, n),
            )
    return path


def renamed(path: Path) -> Path:
    """As `robomimic`, with other names and less in it: cameras without an ending, no quaternion,
    neither rewards nor dones, but a column that tells success.
    """
    with h5py.File(robomimic(path), "a") as file:
        for number, demo in enumerate(file["data"].values()):
            del demo["rewards"], demo["dones"]
            demo.move("actions", "action")
            demo["won"] = np.zeros(len(demo["action"]))
            demo["won"][1] = number < 2
            for part in ("obs", "next_obs"):
                del demo[part]["robot0_eef_quat"]
                for camera in ("agentview", "robot0_eye_in_hand"):
                    demo[part].move(f"{camera}_image", camera)
    return path


def aloha(folder: Path, lengths=(4, 3, 5), *, jpeg=False) -> Path:
    """An episode a file. Row r: qpos is (episode, r, 0, ...), actions are 10 e + r, pictures
    `smooth(episode, r, camera)`; as JPEGs, filled up with zeros, as act-plus-plus does.
    """
    folder.mkdir()
    for number, n in enumerate(lengths):
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            rows = np.arange(float(n))
            qpos = np.zeros((n, 14))
            qpos[:, 0] = number
            qpos[:, 1] = rows
            file["observations/qpos"] = qpos
            file["observations/qvel"] = -qpos
            file["action"] = np.repeat(10 * number + rows[:, None], 14, 1)
            file["won"] = np.eye(1, n, n - 1)[0] * (number != 1)
            for camera in (0, 1):
                shown = [smooth(number, row, camera) for row in range(n)]
                name = f"observations/images/{('cam_high', 'cam_left_wrist')[camera]}"
                file[name] = padded(shown) if jpeg else np.stack(shown)
    return folder


def smooth(episode: int, row: int, camera: int) -> np.ndarray:
    """uint8 (48, 64, 3): red grows downwards, green is the row, blue the camera."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 200, 48)[:, None]
    picture[..., 1] = (20 * row + 40 * episode) % 256
    picture[..., 2] = 100 * camera
    return picture


def padded(shown: list[np.ndarray]) -> np.ndarray:
    """uint8 (n, L): JPEGs in the colours that they show, of one length."""
    coded = []
    for picture in shown:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=95)
        coded.append(np.frombuffer(out.getvalue(), np.uint8))
    longest = max(map(len, coded))
    return np.stack([np.pad(code, (0, longest - len(code))) for code in coded])
