"""What robomimic and LIBERO call things, and how their pictures, states and moments become ours.

Sources: robomimic `envs/env_robosuite.py` (get_observation turns pictures upright),
`scripts/dataset_states_to_obs.py` (obs before, next_obs after the action). LIBERO
`scripts/create_dataset.py` (robosuite's raw pictures, bottom row first; an observation is recorded
AFTER its action, see its issue 54). OpenVLA `experiments/robot/libero/`:
`regenerate_libero_dataset.py` (raw pictures, before the action), `libero_utils.py` (turns pictures
by 180 degrees).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.data.hdf5.file import attribute, facts, member, names, subgroup

if TYPE_CHECKING:
    import h5py

# view names of our environments
_OURS = {"front": ("agentview",), "wrist": ("eye_in_hand", "robot0_eye_in_hand")}
# (w, x, y, z): hand body -> fingertip site, -90 degrees around z
_PANDA_MOUNT = (0.5**0.5, 0.0, 0.0, -(0.5**0.5))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How to read one file."""

    suffix: str  # of the keys of pictures
    cameras: tuple[str, ...] = ()  # keys of pictures, where no suffix tells them
    state_keys: tuple[str, ...]
    flip: tuple[bool, bool]  # rows and columns of pictures are reversed
    late: bool  # an observation shows what its own action led to
    panda: bool  # eef_quat is that of the Panda's hand body: turn it to the fingertips
    text: str  # the instruction


def find_layout(data: h5py.Group, demo: h5py.Group, path: Path) -> Layout:
    """By the first episode's observations; ValueError if they hold no pictures."""
    keys = names(subgroup(demo, "obs")) if member(demo, "obs") is not None else []
    if any(key.endswith("_rgb") for key in keys):
        return _libero(data, path)
    if any(key.endswith("_image") for key in keys):
        return _robomimic(data, keys)
    if found := picture_keys(demo):  # cameras by other names: robomimic's conventions otherwise
        return replace(_robomimic(data, keys), suffix="", cameras=tuple(found))
    raise ValueError(
        f"{path} holds states but no pictures: render them first, with robomimic's "
        "dataset_states_to_obs.py "
        "(--camera_names agentview robot0_eye_in_hand) or LIBERO's create_dataset.py "
        "(--use-camera-obs)"
    )


def picture_keys(demo: h5py.Group) -> list[str]:
    """Keys of `obs` whose datasets look like pictures, uint8 (n, H, W, 3)."""
    import h5py

    if member(demo, "obs") is None:
        return []
    obs = subgroup(demo, "obs")
    found = {key: member(obs, key) for key in names(obs)}
    return [
        key
        for key, values in found.items()
        if isinstance(values, h5py.Dataset)
        and values.dtype == np.uint8
        and values.ndim == 4
        and values.shape[3] == 3
    ]


def _libero(data: h5py.Group, path: Path) -> Layout:
    told = facts(data, "problem_info").get("language_instruction", "")
    text = (told if isinstance(told, str) else " ".join(map(str, told))).strip().strip('"').strip()
    if not text:  # as LIBERO reads its file names: KITCHEN_SCENE10_close_the_drawer_demo.hdf5
        text = re.sub(r"^.*SCENE\d+_", "", path.stem.removesuffix("_demo")).replace("_", " ")
    convention = attribute(data, "macros_image_convention", "")
    return Layout(
        suffix="_rgb",
        state_keys=("ee_pos", "ee_ori", "gripper_states"),
        flip=(convention != "opencv", True),
        late=bool(convention),
        panda=False,
        text=text,
    )


def _robomimic(data: h5py.Group, keys: list[str]) -> Layout:
    env = facts(data, "env_args")
    kwargs = env.get("env_kwargs") if isinstance(env.get("env_kwargs"), dict) else {}
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", str(env.get("env_name", "")))
    site = "robot0_eef_quat_site" in keys  # robosuite >= 1.5
    panda = not site and kwargs.get("robots") in ("Panda", ["Panda"])
    return Layout(
        suffix="_image",
        flip=(False, False),
        late=False,
        panda=panda,
        state_keys=(
            "robot0_eef_pos",
            "robot0_eef_quat_site" if site else "robot0_eef_quat",
            "robot0_gripper_qpos",
        ),
        text=" ".join(words).lower() or "do the task",
    )


def pick_cameras(
    layout: Layout, keys: list[str], views: tuple[str, ...] | None, path: Path
) -> dict[str, str]:
    """View -> key, in order. A view is a key, a key without its ending,
    or our environments' "front" or "wrist".
    """
    known = {
        key.removesuffix(layout.suffix): key
        for key in sorted(layout.cameras or keys)
        if key.endswith(layout.suffix)
    }
    found = {}
    for view in known if views is None else views:
        wanted = (view.removesuffix(layout.suffix), *_OURS.get(view, ()))
        name = next((name for name in wanted if name in known), None)
        if name is None or view in found:
            raise ValueError(
                f"{path} has no camera {view!r} (or it was named twice): choose from "
                f"{', '.join(known)}"
            )
        found[view] = known[name]
    if not found:
        raise ValueError(f"views of {path} are empty: choose from {', '.join(known)}")
    return found


def state(key: str, values: np.ndarray, panda: bool) -> np.ndarray:
    """One part of the proprioception, float32 (n, k). Quaternions: (x, y, z, w) there; (w, x, y,
    z), x + y >= 0 here, as in `wamrl/envs/robosuite/simulation.py`: a hand that points down has
    w = 0, whose sign would jump."""
    if not key.endswith(("eef_quat", "eef_quat_site")) or values.shape[1] != 4:
        return values
    w = values[:, 3]
    x = values[:, 0]
    y = values[:, 1]
    z = values[:, 2]
    if panda and key.endswith("eef_quat"):
        c, _, _, s = _PANDA_MOUNT
        w, x, y, z = w * c - z * s, x * c + y * s, y * c - x * s, z * c + w * s
    turned = np.stack([w, x, y, z], 1).astype(np.float32)
    return np.where(turned[:, 1:2] + turned[:, 2:3] < 0, -turned, turned)
