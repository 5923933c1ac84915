"""MetaWorld: a simulated Sawyer arm at a table, the default environment.
Needs `pip install 'wamrl[metaworld]'`.

Actions, float32 (4,): hand displacement x, y, z (1 = the hand's target moves 1 cm in this control
step) and gripper effort (-1 opens, +1 closes). Proprioception, float32 (7,): hand position in
metres, gripper opening in [0, 1], hand displacement of the last step in metres. The goal is not in
it: it is a thing in the scene, or a green ball drawn into the picture. With `stages=K` (reach,
push, pick-place) the next goal is put as soon as the present one is reached; in button-press the
box then stands elsewhere with its button out, and the hand has to draw back and press again.

Example: `env = MetaWorldConfig(task="button-press").build(); env.reset(0); frame = env.render()`
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from wamrl.envs.attempts import COUNTERS, Attempts
from wamrl.envs.base import Env, EnvConfig, EnvSpec, Expert, StepResult
from wamrl.envs.metaworld.contact import watch
from wamrl.envs.metaworld.expert import make_expert
from wamrl.envs.metaworld.simulation import Simulation, import_metaworld
from wamrl.envs.metaworld.tasks import TASKS, WRIST, known_tasks
from wamrl.envs.rendering import Marker, RenderStyle, shared_renderer

VIEWS = ("front", "wrist")
MAX_STAGES = 4
# the puck: MetaWorld paints it red on dark wood, which is nearly black on the table
LOOK = RenderStyle(plain=("objGeom",))


@dataclass(frozen=True, kw_only=True)
class MetaWorldConfig(EnvConfig):
    """One task of MetaWorld 3.1; names as there, without "-v3"."""

    task: str = "button-press"
    # sub-goals in one episode; more than 1 for reach, push, pick-place and button-press
    stages: int = 1
    image_size: int = 64  # pixels, square
    views: tuple[str, ...] = ("front",)
    horizon: int | None = None  # control steps; None: about 1.8 times what the expert needs

    def validate(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"unknown MetaWorld task {self.task!r}: choose one of {known_tasks()}")
        if not 1 <= self.stages <= MAX_STAGES:
            raise ValueError(f"stages={self.stages} is not possible: choose 1 to {MAX_STAGES}")
        if self.stages > 1 and not TASKS[self.task].stageable:
            names = ", ".join(name for name, task in TASKS.items() if task.stageable)
            raise ValueError(
                f"task {self.task!r} has one stage only: set stages=1 or choose one of {names}"
            )
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

    def build(self) -> MetaWorldEnv:
        self.validate()
        import_metaworld()
        return MetaWorldEnv(self)


class MetaWorldEnv(Env):
    """One scene. Rendering reads the simulation and never changes it,
    so skipping frames changes nothing.
    """

    def __init__(self, config: MetaWorldConfig) -> None:
        task = TASKS[config.task]
        self.spec = EnvSpec(
            name=f"metaworld/{config.task}",
            instruction=task.instruction,
            views=config.views,
            image_hw=(config.image_size, config.image_size),
            action_dim=4,
            proprio_dim=7,
            horizon=config.horizon or task.horizon * config.stages,
            stages=config.stages,
            counters=COUNTERS,
        )
        self.sim = Simulation(config.task)
        self._name = config.task
        self._task = task
        self._cameras = tuple(task.front if view == "front" else WRIST for view in config.views)
        self._over = True
        self.reset(0)

    def reset(self, seed: int) -> None:
        self.sim.reset(seed)
        self._next = self._later(seed, self.spec.stages - 1) if self.spec.stages > 1 else []
        self._steps = 0
        self._done = 0
        self._over = False
        self._watch = watch(self._name, self.sim, self._task.touch)
        self._attempts = Attempts(carries=self._watch.carries)
        self._hand = self._last_hand = self.sim.hand()

    def step(self, action: np.ndarray) -> StepResult:
        assert not self._over, "the episode is over: call reset first"
        action = np.asarray(action, np.float32)
        action = np.minimum(np.maximum(action, -1.0), 1.0)  # np.clip takes four times as long
        assert action.shape == (4,) and isfinite(action.dot(action)), f"bad action {action}"
        solved = self.sim.step(action)
        self._attempts.see(self._watch.engaged(), solved)
        self._steps += 1
        self._last_hand, self._hand = self._hand, self.sim.hand()
        self._done += int(solved)
        success = self._done == self.spec.stages
        if solved and not success:
            self._begin_stage(self._next[self._done - 1])
        truncated = self._steps >= self.spec.horizon and not success
        self._over = success or truncated
        return StepResult(
            success=success,
            terminated=success,
            truncated=truncated,
            stages=self._done,
            counters=self._attempts.counters,
        )

    def _later(self, seed: int, count: int) -> list[np.ndarray]:
        """What the later stages ask for: free goals, or places of the thing to handle;
        float64 (3,) each.
        """
        if self._task.touch:
            return self.sim.later_places(self._task.touch, seed, count)
        return self.sim.later_goals(seed, count)

    def _begin_stage(self, place: np.ndarray) -> None:
        if self._task.touch:
            self.sim.move(self._task.touch, place)
        else:
            self.sim.set_goal(place)

    def render(self) -> np.ndarray:
        size = self.spec.image_hw[0]
        renderer = shared_renderer(f"metaworld/{self._name}", self.sim.env.model, size, size, LOOK)
        markers = (Marker(position=tuple(self.sim.goal())),) if self._task.marker else ()
        draw = renderer.render
        return np.stack(
            [
                draw(self.sim.env.model, self.sim.env.data, camera, markers)
                for camera in self._cameras
            ]
        )

    def proprio(self) -> np.ndarray:
        return np.concatenate(
            [self._hand, [self.sim.gripper()], self._hand - self._last_hand]
        ).astype(np.float32)

    def expert(self) -> Expert:
        return make_expert(self._name, self.sim, self.spec.stages)
