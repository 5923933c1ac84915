"""An environment that does next to nothing:
a 64 x 64 picture and a counter, for ours and for gymnasium.

Both give the same frames: the counter's value, whose start is the seed, in every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from wamrl.envs.base import Env, EnvConfig, EnvSpec, StepResult

SIZE, ACTIONS, HORIZON = 64, 4, 1_000_000_000  # pixels, action dims, control steps


@dataclass(frozen=True, kw_only=True)
class BlankConfig(EnvConfig):
    def validate(self) -> None:
        pass

    def build(self) -> BlankEnv:
        return BlankEnv()


class BlankEnv(Env):
    spec = EnvSpec(
        name="blank",
        instruction="wait",
        views=("front",),
        image_hw=(SIZE, SIZE),
        action_dim=ACTIONS,
        proprio_dim=1,
        horizon=HORIZON,
    )
    _going = StepResult(success=False, terminated=False, truncated=False, stages=0)
    _frame, _state = np.zeros((1, SIZE, SIZE, 3), np.uint8), np.zeros(1, np.float32)

    def reset(self, seed: int) -> None:
        self.count, self._frame = seed, np.zeros((1, SIZE, SIZE, 3), np.uint8)

    def step(self, action: np.ndarray) -> StepResult:
        self.count += 1
        return self._going

    def render(self) -> np.ndarray:
        self._frame[:] = self.count % 256
        return self._frame

    def proprio(self) -> np.ndarray:
        return self._state


class BlankGym(gym.Env):
    """The same for the peers: gymnasium has the frame in every observation."""

    observation_space = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = gym.spaces.Box(-1, 1, (ACTIONS,), np.float32)
    count = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.count, self._frame = (
            self.count if seed is None else seed,
            np.zeros((SIZE, SIZE, 3), np.uint8),
        )
        return self._draw(), {}

    def step(self, action: np.ndarray):
        self.count += 1
        return self._draw(), 0.0, False, False, {}

    def _draw(self) -> np.ndarray:
        self._frame[:] = self.count % 256
        return self._frame
