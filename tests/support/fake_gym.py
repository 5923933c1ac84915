"""Environments of gymnasium that a user might bring; importing this module registers them."""

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class TwoCameras(gymnasium.Env):
    """LeRobot's conventions: two cameras, agent_pos, info["is_success"]. The agent moves by its
    action; every frame is unique and shows camera, seed and step."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode=None, goal=1e9, fails_at=1e9, kind="dict", remembers=False):
        self.kind, self.goal, self.fails_at, self.remembers = kind, goal, fails_at, remembers
        self.action_space = spaces.Box(np.float32([[-1, 0]]), np.float32([[3, 10]]))  # (1, 2)
        if kind == "endless":
            self.action_space = spaces.Box(-np.inf, np.inf, (2,))
        if kind == "integers":
            self.action_space = spaces.Box(0, 5, (2,), dtype=np.int64)
        camera = spaces.Box(0, 255, (24, 48, 3), np.uint8)
        pixels = camera if kind == "one" else spaces.Dict({"wrist": camera, "front": camera})
        self.observation_space = spaces.Dict(
            {"pixels": pixels, "agent_pos": spaces.Box(-1e3, 1e3, (2,))}
        )
        self.calls, self.render_mode, self._ever = [], render_mode, 0

    def picture(self, camera: int) -> np.ndarray:
        rng = np.random.default_rng([camera, self._seed, self._steps])
        return rng.integers(0, 256, (24, 48, 3), dtype=np.uint8)

    def _look(self):
        pixels = {"front": self.picture(0), "wrist": self.picture(1)}
        return {
            "pixels": pixels["front"] if self.kind == "one" else pixels,
            "agent_pos": self._place.copy(),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._steps, self._ever = seed, 0, self._ever + 1
        self._place = self.np_random.uniform(-1, 1, 2) + (self._ever if self.remembers else 0)
        return self._look(), {"is_success": False}

    def step(self, action):
        assert self.action_space.contains(action), action
        self._place, self._steps = self._place + action.ravel(), self._steps + 1
        won, lost = bool(self._place.sum() > self.goal), self._steps >= self.fails_at
        info = {
            "is_success": np.bool_(won),
            "solved": won,
            "stages": int(self._place.sum() > self.goal / 2),
        }
        return self._look(), 0.0, lost, False, info

    def render(self):
        return self.picture(2)


gymnasium.register("wamrl_tests/TwoCameras-v0", TwoCameras, max_episode_steps=7)
gymnasium.register("wamrl_tests/NoClock-v0", TwoCameras)
