"""A clock with a random walk: every frame is unique,
so a frame of the wrong moment is noticed. It fails on demand.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from wamrl.envs.base import Env, EnvConfig, EnvSpec, StepResult


@dataclass(frozen=True, kw_only=True)
class WalkConfig(EnvConfig):
    horizon: int = 23
    solve_above: float = 1e9  # success when the first coordinate exceeds this
    fault: str = ""  # what happens at control step 3 of the episodes in `bad_seeds`, or "build"
    bad_seeds: tuple[int, ...] = ()
    step_s: float = 0.0  # seconds that a control step takes

    def validate(self) -> None:
        pass

    def build(self) -> "WalkEnv":
        if self.fault == "build":
            raise ValueError("no such scene: choose another")
        if self.fault == "slow build":
            end = time.process_time() + 0.4
            while time.process_time() < end:
                pass
        if self.fault == "hung build":
            time.sleep(1000)
        return WalkEnv(self)


class WalkEnv(Env):
    def __init__(self, config: WalkConfig) -> None:
        self._config = config
        self.spec = EnvSpec(
            name="walk",
            instruction="walk",
            views=("a", "b"),
            image_hw=(6, 5),
            action_dim=3,
            proprio_dim=4,
            horizon=config.horizon,
            counters=("attempts", "retries"),
        )

    def reset(self, seed: int) -> None:
        self._seed, self._steps = seed, 0
        self._rng = np.random.default_rng(seed)
        self._state = self._rng.normal(size=3)

    def step(self, action: np.ndarray) -> StepResult:
        self._steps += 1
        time.sleep(self._config.step_s)
        if self._seed in self._config.bad_seeds and self._steps == 3:
            self._fail()
        self._state = self._state + np.clip(action, -1, 1) + 0.01 * self._rng.normal(size=3)
        success = bool(self._state[0] > self._config.solve_above)
        truncated = self._steps >= self._config.horizon and not success
        return StepResult(
            success=success,
            terminated=success,
            truncated=truncated,
            stages=int(success),
            counters=(self._steps // 3 + self._seed % 2, self._steps // 7),
        )

    def _fail(self) -> None:
        match self._config.fault:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(1000)
            case "exit":
                sys.exit(3)
            case "crash":
                os.abort()
            case "garbage":  # into the pipe to the pool
                os.write(int(sys.argv[1]), b"\x00\x00\x00\x04junk")
                time.sleep(1000)
            case "memory":
                np.ones(1 << 50)
            case "raise":
                raise KeyError("joint7")
            case "sentence":
                raise ValueError("the scene fell apart: lower the action scale")

    def render(self) -> np.ndarray:
        values = np.concatenate(
            [[self._steps, self._seed % 251], np.abs(self._state * 1000) % 256]
        ).astype(np.uint8)
        return np.resize(values, (2, 6, 5, 3))

    def proprio(self) -> np.ndarray:
        return np.concatenate([self._state, [self._steps]]).astype(np.float32)
