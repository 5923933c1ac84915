"""robosuite: a simulated Panda arm that lifts, stacks, sorts and assembles.
Needs `pip install 'wamrl[robosuite]'`.

Actions, float32 (7,), robosuite's OSC_POSE at 20 Hz: displacement of the hand's goal x, y, z (1 = 5
cm from where the hand is) and its rotation as an axis-angle vector in the world's axes (1 = 0.5
rad), then the fingers (the sign counts: -1 opens, +1 closes, ten control steps from end to end).
Proprioception, float32 (9,): position of the point between the fingertips in metres, its
orientation as a quaternion (w, x, y, z) whose sign does not jump while the hand points down and is
turned less than half a turn from its first posture, positions of both fingers in metres.
Views: "front" looks at the robot over the table, "wrist" is the model's camera in the hand.

The tasks with several things ("pick-place", "nut-assembly") have one stage per thing. They may be
placed in any order; `stages` is the largest number that were placed at once so far, success is
robosuite's own: all are placed now.

Example: `env = RobosuiteConfig(task="lift").build(); env.reset(0); frame = env.render()`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wamrl.envs.attempts import COUNTERS, Attempts
from wamrl.envs.base import Env, EnvConfig, EnvSpec, Expert, StepResult
from wamrl.envs.rendering import RenderStyle, shared_renderer
from wamrl.envs.robosuite.expert import engaged, make_expert
from wamrl.envs.robosuite.simulation import Simulation, import_robosuite
from wamrl.envs.robosuite.tasks import TASKS, WRIST, known_tasks

VIEWS = ("front", "wrist")
# group 0 are shapes for collisions; the things' meshes stay as they are
LOOK = RenderStyle(hidden=(0,), keep_below=700)


@dataclass(frozen=True, kw_only=True)
class RobosuiteConfig(EnvConfig):
    """One task of robosuite 1.5 with a Panda."""

    task: str = "lift"
    image_size: int = 64  # pixels, square
    views: tuple[str, ...] = ("front",)
    horizon: int | None = None  # control steps; None: about twice what the expert needs

    def validate(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"unknown robosuite task {self.task!r}: choose one of {known_tasks()}")
        if not 16 <= self.image_size <= 512:
            raise ValueError(
                f"image_size={self.image_size} is not possible: choose 16 to 512 pixels"
            )
        if (
            not self.views
            or len(set(self.views)) < len(self.views)
            or not set(self.views) <= set(VIEWS)
        ):
            raise ValueError(
                f"views={self.views} is not possible: choose one or more of {VIEWS}, each once"
            )
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(
                f"horizon={self.horizon} is not possible: give at least 1 control step, or None"
            )

    def build(self) -> RobosuiteEnv:
        self.validate()
        import_robosuite()
        return RobosuiteEnv(self)


class RobosuiteEnv(Env):
    """One scene. Rendering reads the simulation and never changes it,
    so skipping frames changes nothing.
    """

    def __init__(self, config: RobosuiteConfig) -> None:
        task = TASKS[config.task]
        self.spec = EnvSpec(
            name=f"robosuite/{config.task}",
            instruction=task.instruction,
            views=config.views,
            image_hw=(config.image_size, config.image_size),
            action_dim=7,
            proprio_dim=9,
            horizon=config.horizon or task.horizon,
            stages=len(task.things),
            counters=COUNTERS,
        )
        self.sim = Simulation(task)
        self._cameras = tuple(task.front if view == "front" else WRIST for view in config.views)
        self._over = True
        self.reset(0)

    def reset(self, seed: int) -> None:
        self.sim.reset(seed)
        self._steps = 0
        self._done = 0
        self._over = False
        self._attempts = Attempts(carries=True)

    def step(self, action: np.ndarray) -> StepResult:
        assert not self._over, "the episode is over: call reset first"
        action = np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        assert action.shape == (self.spec.action_dim,) and np.isfinite(action).all(), (
            f"bad action {action}"
        )
        success = self.sim.step(action)
        placed = self.sim.placed()
        done = max(self._done, sum(placed))
        self._attempts.see(engaged(self.sim, placed), done > self._done)
        self._done = done
        self._steps = self._steps + 1
        truncated = self._steps >= self.spec.horizon and not success
        self._over = success or truncated
        return StepResult(
            success=success,
            terminated=success,
            truncated=truncated,
            stages=self._done,
            counters=self._attempts.counters,
        )

    def render(self) -> np.ndarray:
        size = self.spec.image_hw[0]
        sim = self.sim
        renderer = shared_renderer(self.spec.name, sim.model, size, size, LOOK)
        return np.stack([renderer.render(sim.model, sim.data, camera) for camera in self._cameras])

    def proprio(self) -> np.ndarray:
        position, _ = self.sim.hand.pose()
        return np.concatenate([position, self.sim.quaternion(), self.sim.fingers()]).astype(
            np.float32
        )

    def expert(self) -> Expert:
        return make_expert(self.sim)

    def close(self) -> None:
        self.sim.env.close()
