"""An environment that does next to nothing, for the pool and for gymnasium: what is left is the way there and back."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np

from wamrl.envs.base import Env, EnvConfig, EnvSpec, StepResult

SIZE = 64  # pixels


def picture(count: int, seed: int, out: np.ndarray) -> np.ndarray:
    """What the camera shows after `count` steps: cheap, and different each time."""
    out[:] = (count * 7 + seed * 13) % 256
    return out


@dataclass(frozen=True, kw_only=True)
class BlankConfig(EnvConfig):
    def validate(self) -> None:
        pass

    def build(self) -> Blank:
        return Blank()


class Blank(Env):
    spec = EnvSpec(
        name="blank", instruction="wait", views=("front",), image_hw=(SIZE, SIZE), action_dim=4, proprio_dim=4,
        horizon=10**9,
    )  # fmt: skip

    def __init__(self) -> None:
        self._frame, self._state = np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros(4, np.float32)

    def reset(self, seed: int) -> None:
        self._count, self._seed = 0, seed

    def step(self, action: np.ndarray) -> StepResult:
        self._count += 1
        return StepResult(success=False, terminated=False, truncated=False, stages=0, attempts=0, retries=0)

    def render(self) -> np.ndarray:
        return picture(self._count, self._seed, self._frame)

    def proprio(self) -> np.ndarray:
        return self._state

    def close(self) -> None:
        pass


class BlankGym(gymnasium.Env):
    """The same for the peers."""

    observation_space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)

    def __init__(self) -> None:
        self._frame = np.zeros((SIZE, SIZE, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self._count, self._seed = 0, seed or 0
        return picture(0, self._seed, self._frame), {}

    def step(self, action):
        self._count += 1
        return picture(self._count, self._seed, self._frame), 0.0, False, False, {}
