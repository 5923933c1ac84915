"""Observations as users have them, read into what the model takes.

A dict, nested or not, keys joined by "." or "/". Per camera an image, the state, perhaps a task:

    observation.images.<camera>, observation.state, task     LeRobot
    pixels or pixels/<camera>, agent_pos                     gymnasium
    observation/image, observation/state, prompt             openpi
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wamrl.envs.base import EnvSpec
from wamrl.runtime.images import resize

_STATE = ("state", "agent_pos", "proprio")
_TEXT = ("task", "prompt", "instruction")
_ONLY_CAMERA = ("image", "images", "pixels", "")  # of a model with one
_FOLDERS = ("images", "image", "pixels")
_MAX_SIDE = 8192  # pixels
_MAX_TEXT = 1000  # characters
_MAX_DEPTH = 4


class ObservationReader:
    """Finds a model's inputs in observations; `read` raises ValueError of one sentence."""

    def __init__(self, spec: EnvSpec, state_keys: Sequence[str] = ()) -> None:
        """state_keys: keys of the parts of the state, joined in this order; (): the usual names."""
        self._spec = spec
        self._state_keys = tuple(_plain(key) for key in state_keys if key)

    def read(self, obs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, str]:
        """Frames uint8 (V, H, W, 3), resized; state float32 (P,), raw units; the instruction."""
        if not isinstance(obs, Mapping):
            raise ValueError(f"an observation is a dict of arrays, not {type(obs).__name__}")
        found = _flat(obs)
        frames = [self._image(found, view) for view in self._spec.views]
        return np.stack(frames), self._state(found), self._text(found)

    def _image(self, found: dict[str, Any], view: str) -> np.ndarray:
        names = [view, f"{view}_image", *(f"{folder}.{view}" for folder in _FOLDERS)]
        if len(self._spec.views) == 1:
            names += _ONLY_CAMERA
        key = _one_of(found, names)
        if key is None:
            raise ValueError(
                f"the observation has no image of camera {view!r}: give observation.images.{view} "
                f"(there is {_listed(found)})"
            )
        return resize(_picture(found[key], view), self._spec.image_hw)

    def _state(self, found: dict[str, Any]) -> np.ndarray:
        size = self._spec.proprio_dim
        if self._state_keys:
            keys = [key for key in self._state_keys if key in found]
            complete = len(keys) == len(self._state_keys)
        else:
            keys = [key for key in [_one_of(found, _STATE)] if key is not None]
            complete = bool(keys)
        if not complete:
            wanted = ", ".join(self._state_keys) or "observation.state"
            raise ValueError(
                f"the observation has no state: give {wanted}, {size} numbers "
                f"(there is {_listed(found)})"
            )
        state = np.concatenate([_numbers(found[key], key) for key in keys])
        if state.shape != (size,):
            raise ValueError(f"the state has {state.size} numbers: the model was made for {size}")
        return state

    def _text(self, found: dict[str, Any]) -> str:
        key = _one_of(found, _TEXT)
        if key is None and self._spec.instructions:
            told = "; ".join(self._spec.instructions[:5])
            raise ValueError(
                f"this model was made for {len(self._spec.instructions)} tasks: say which by task, "
                f"one of: {told}"
            )
        if key is None:
            return self._spec.instruction
        text = found[key]
        if isinstance(text, list | tuple) and len(text) == 1:
            text = text[0]
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise ValueError(f"{key} must be one text of at most {_MAX_TEXT} characters")
        return text


def _plain(key: str) -> str:
    return key.replace("/", ".").removeprefix("observation.")


def _flat(obs: Mapping[str, Any], prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """Nested dicts as one, keys joined by "." and without "observation."."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"the observation is nested more than {_MAX_DEPTH} deep: make it flatter")
    found: dict[str, Any] = {}
    for key, value in obs.items():
        if not isinstance(key, str):
            raise ValueError(f"keys of an observation are texts, not {type(key).__name__}")
        name = _plain(f"{prefix}{key}")
        parts = {name: value}
        if isinstance(value, Mapping):
            parts = _flat(value, "" if name == "observation" else f"{name}.", depth + 1)
        if twice := parts.keys() & found.keys():
            raise ValueError(f"the observation has {min(twice)!r} twice: leave one out")
        found |= parts
    return found


def _one_of(found: dict[str, Any], names: Sequence[str]) -> str | None:
    there = [name for name in names if name in found]
    if len(there) > 1:
        raise ValueError(f"the observation has {there[0]!r} and {there[1]!r}: leave one out")
    return there[0] if there else None


def _listed(found: dict[str, Any]) -> str:
    return ", ".join(sorted(found)[:12])[:200] or "nothing"


def _picture(value: Any, view: str) -> np.ndarray:
    """uint8 (H, W, 3) of (H, W, 3) or (3, H, W), uint8 or in [0, 1], maybe a batch of one."""
    picture = np.asarray(value)
    if picture.ndim == 4 and len(picture) == 1:
        picture = picture[0]
    if picture.ndim == 3 and picture.shape[0] == 3 and picture.shape[2] != 3:
        picture = picture.transpose(1, 2, 0)
    sides = picture.shape[:2]
    if picture.ndim != 3 or picture.shape[2] != 3 or not 1 <= min(sides) <= max(sides) <= _MAX_SIDE:
        raise ValueError(
            f"camera {view!r}: one picture (H, W, 3) or (3, H, W) is needed, not {picture.shape}"
        )
    if picture.dtype.kind == "f":
        if not (picture.min() >= 0 and picture.max() <= 1):  # NaN fails too
            raise ValueError(f"camera {view!r}: floats must lie in [0, 1]; or give uint8")
        picture = np.rint(picture.astype(np.float32) * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise ValueError(f"camera {view!r}: give uint8 or floats in [0, 1], not {picture.dtype}")
    return picture


def _numbers(value: Any, key: str) -> np.ndarray:
    """float32 (P,) of (P,) or (1, P)."""
    try:
        numbers = np.asarray(value, np.float32).reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key} must hold numbers ({error})") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{key} holds a number that is not finite")
    return numbers
