"""Our environments for other libraries.

    import gymnasium
    import wamrl.envs.registered  # adds the ids below

    env = gymnasium.make("wamrl/MetaWorld-hammer-v0")

In one line: `gymnasium.make("wamrl.envs.registered:wamrl/MetaWorld-hammer-v0")`. Further arguments
are those of the environment's config: `gymnasium.make("wamrl/Point-v0", stages=2)`.

Observation: a dictionary with one picture per view, uint8 (H, W, 3), and `state`, float32 (P,), the
robot's own. Action: float32 (A,) within the environment's bounds. Reward: 1 in the step that solves
the task, else 0. `info` says `success`, `stages` completed so far, and what is counted. An episode
is a function of the seed given to `reset` and the actions; without a seed the next one is drawn.
`metadata["render_fps"]`: control steps per second of the simulated world, 12 where that is unknown.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from wamrl.envs.base import EnvConfig

NAMESPACE = "wamrl"
FPS = 12  # of films where the world's pace is not known, as in a run's videos
SEEDS = 2**31  # how many initial states `reset` draws from where no seed is given


class OurEnv(gymnasium.Env):
    """One of our environments behind gymnasium's interface."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}

    def __init__(self, config: EnvConfig, render_mode: str | None = None) -> None:
        self._env = config.build()
        self.render_mode = render_mode
        spec = self._env.spec
        self.metadata = {**self.metadata, "render_fps": round(spec.control_hz or FPS)}
        low, high = spec.bounds
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        pixels = spaces.Box(0, 255, (*spec.image_hw, 3), np.uint8)
        state = spaces.Box(-np.inf, np.inf, (spec.proprio_dim,), np.float32)
        self.observation_space = spaces.Dict({**dict.fromkeys(spec.views, pixels), "state": state})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; `options` are not used."""
        super().reset(seed=seed)
        start = int(self.np_random.integers(SEEDS)) if seed is None else seed
        self._env.reset(start)
        return self._look(), {"instruction": self._env.instruction, "seed": start}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step."""
        result = self._env.step(action)
        info = {"success": result.success, "stages": result.stages}
        info |= dict(zip(self._env.spec.counters, result.counters, strict=True))
        return self._look(), float(result.success), result.terminated, result.truncated, info

    def render(self) -> np.ndarray | None:
        """The views side by side, uint8 (H, V * W, 3); None without render_mode="rgb_array"."""
        if self.render_mode is None:
            return None
        return np.concatenate(list(self._env.render()), axis=1)

    def close(self) -> None:
        """Free the simulation."""
        self._env.close()

    def _look(self) -> dict[str, np.ndarray]:
        views = zip(self._env.spec.views, self._env.render(), strict=True)
        return {**dict(views), "state": self._env.proprio()}


def make(family: str, task: str = "", render_mode: str | None = None, **settings: Any) -> OurEnv:
    """What the registered ids call; settings: fields of the family's config."""
    if family == "point":
        from wamrl.envs.point import PointConfig

        return OurEnv(PointConfig(**settings), render_mode)
    if family == "metaworld":
        from wamrl.envs.metaworld.env import MetaWorldConfig

        return OurEnv(MetaWorldConfig(task=task, **settings), render_mode)
    from wamrl.envs.robosuite.env import RobosuiteConfig

    return OurEnv(RobosuiteConfig(task=task, **settings), render_mode)


def ids() -> dict[str, dict[str, str]]:
    """Every id with the arguments of `make`; no simulator is imported."""
    from wamrl.envs.metaworld.tasks import TASKS as METAWORLD
    from wamrl.envs.robosuite.tasks import TASKS as ROBOSUITE

    found = {f"{NAMESPACE}/Point-v0": {"family": "point"}}
    for task in METAWORLD:
        found[f"{NAMESPACE}/MetaWorld-{task}-v0"] = {"family": "metaworld", "task": task}
    for task in ROBOSUITE:
        found[f"{NAMESPACE}/Robosuite-{task}-v0"] = {"family": "robosuite", "task": task}
    return found


for _name, _arguments in ids().items():
    gymnasium.register(_name, entry_point=f"{__name__}:make", kwargs=_arguments)
