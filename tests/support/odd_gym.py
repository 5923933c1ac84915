"""Environments of gymnasium, each odd in one way that users have reported; importing registers."""

from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from wamrl.envs.gymnasium.env import GymConfig


class Slide(gymnasium.Env):
    """A square is pushed to the right; `mode` says what is odd."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, mode="plain"):
        self.mode = mode
        self.action_space = spaces.Box(-5.0, 5.0, (2,), np.float32)
        self.observation_space = spaces.Dict({})

    def picture(self) -> np.ndarray:
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:4] = 30
        column, row = (self.place / 100 * [52, 36]).astype(int)
        picture[row : row + 12, column : column + 12] = 255
        return picture

    def _look(self):
        picture = self.picture()
        state = self.place.copy()
        if self.mode == "nan_state" and self.steps > 3:
            state[1] = np.nan
        if self.mode == "flat":
            return {"observation.images.top": picture, "observation.state": state}
        if self.mode == "blind":
            return {"agent_pos": state}
        if self.mode == "stateless":
            return {"pixels": picture}
        return {"pixels": {"top": self.odd(picture)}, "agent_pos": state}

    def odd(self, picture):
        opaque = np.full_like(picture[..., :1], 255)
        match self.mode:
            case "float":
                return (picture / 255).astype(np.float32)
            case "bright_float":
                return picture.astype(np.float32)
            case "chw":
                return picture.transpose(2, 0, 1)
            case "grey":
                return picture[..., :1]
            case "grey2d":
                return picture[..., 0]
            case "rgba":
                return np.concatenate([picture, opaque], -1)
            case "glass":
                return np.concatenate([picture, opaque // 2], -1)
            case "torch":
                return torch.from_numpy(picture).permute(2, 0, 1) / 255
            case "int64":
                return picture.astype(np.int64)
            case "stack":
                return np.stack([picture] * 4)
        return picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.place = self.np_random.uniform(0, 60, 2).astype(np.float32)
        self.falls = bool(self.place[0] < 25)
        return self._look(), {}

    def step(self, action):
        self.steps += 1
        self.place = np.clip(self.place + action, 0, 100).astype(np.float32)
        won = bool(self.place[0] >= 95) or self.mode == "wins_at_once"
        done = won
        info = {"is_success": won}
        match self.mode:
            case "fragile":
                done = won or (self.falls and self.steps == 2)
            case "final_only":  # as CarRacing's lap_finished: true, or lost, or the clock
                lost = bool(self.place[0] <= 0)
                done = won or lost
                info = {"is_success": won} if done else {}
            case "silent_end":
                info = {}
            case "none":
                info = {"is_success": True if won else None}
            case "torch":
                info = {"is_success": torch.tensor(won)}
            case "nested":
                info = {"episode": {"success": won}}
            case "vague":
                info = {"is_success": 0.7}
            case "stages":
                info["stages"] = 3
            case "raises":
                if self.steps == 5:
                    raise RuntimeError("huge value in QACC")
            case "mute":
                if self.steps == 5:
                    raise NotImplementedError
        return self._look(), 0.0, done, False, info


gymnasium.register("wamrl_tests/Slide-v0", Slide, max_episode_steps=30)


def slide(mode="plain", **changes) -> GymConfig:
    """Its configuration."""
    changes = {"image_size": 16} | changes
    return GymConfig(
        id="wamrl_tests/Slide-v0",
        module="tests.support.odd_gym",
        instruction="slide it right",
        kwargs=(("mode", mode),),
        **changes,
    )
