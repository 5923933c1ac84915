"""MetaWorld: a simulated Sawyer arm at a table, the default environment.
Needs `pip install -e '.[metaworld]'`.

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
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wamrl.envs.base import EnvConfig, EnvSpec, Expert
from wamrl.envs.metaworld.contact import contact_detector
from wamrl.envs.metaworld.expert import make_expert
from wamrl.envs.metaworld.simulation import Simulation, import_metaworld
from wamrl.envs.metaworld.tasks import TASKS, WRIST, known_tasks
from wamrl.envs.rendering import Marker, RenderStyle, shared_renderer
from wamrl.envs.simulated import (
    Progress,
    Scene,
    SimulatedEnv,
    require_image_size,
    require_views,
)
from wamrl.runtime.ranges import Count, Pixels, check_ranges

VIEWS = ("front", "wrist")
MAX_STAGES = 4
# the puck: MetaWorld paints it red on dark wood, which is nearly black on the table
STYLE = RenderStyle(plain=("objGeom",))


@dataclass(frozen=True, kw_only=True)
class MetaWorldConfig(EnvConfig):
    """One task of MetaWorld 3.1; names as there, without "-v3"."""

    task: str = "button-press"
    # sub-goals in one episode; more than 1 for reach, push, pick-place and button-press
    stages: Annotated[int, Ge(1), Le(MAX_STAGES)] = 1
    image_size: Pixels = 64  # pixels, square
    views: tuple[str, ...] = ("front",)
    horizon: Count | None = None  # control steps; None: about 1.8 times what the expert needs

    def validate(self) -> None:
        """ValueError for an unknown task, or an impossible stage, size, view or horizon."""
        check_ranges(self, "env")
        if self.task not in TASKS:
            raise ValueError(f"unknown MetaWorld task {self.task!r}: choose one of {known_tasks()}")
        if self.stages > 1 and not TASKS[self.task].stageable:
            names = ", ".join(name for name, task in TASKS.items() if task.stageable)
            raise ValueError(
                f"task {self.task!r} has one stage only: set stages=1 or choose one of {names}"
            )
        require_image_size(self.image_size, 16, 512)
        require_views(self.views, VIEWS)

    def build(self) -> SimulatedEnv:
        """The environment; ValueError if MetaWorld is not installed."""
        self.validate()
        import_metaworld()
        return SimulatedEnv(MetaWorldScene(self))


class MetaWorldScene(Scene):
    """One task: its stages, its cameras, and what the policy is told of the arm.
    Rendering reads the simulation and never changes it, so skipping frames changes nothing.
    """

    def __init__(self, config: MetaWorldConfig) -> None:
        task = TASKS[config.task]
        self.sim = Simulation(config.task)
        self.spec = EnvSpec(
            name=f"metaworld/{config.task}",
            instruction=task.instruction,
            views=config.views,
            image_hw=(config.image_size, config.image_size),
            action_dim=4,
            proprio_dim=7,
            horizon=config.horizon or task.horizon * config.stages,
            stages=config.stages,
            control_hz=1 / self.sim.env.dt,
        )
        self._name = config.task
        self._task = task
        self._cameras = tuple(task.front if view == "front" else WRIST for view in config.views)
        self._contact = contact_detector(config.task, self.sim, task.touch)
        self.carries = self._contact.carries

    def reset(self, seed: int) -> None:
        """Put MetaWorld's own start for `seed`, and draw what the later stages ask for."""
        self.sim.reset(seed)
        self._next = self._later(seed, self.spec.stages - 1) if self.spec.stages > 1 else []
        self._done = 0
        self._contact.forget()
        self._hand = self._last_hand = self.sim.hand()

    def step(self, action: np.ndarray) -> Progress:
        """One control step; puts the next goal as soon as the present one is reached."""
        solved = self.sim.step(action)
        engaged = self._contact.engaged()
        self._last_hand = self._hand
        self._hand = self.sim.hand()
        self._done += int(solved)
        success = self._done == self.spec.stages
        if solved and not success:
            self._begin_stage(self._next[self._done - 1])
        return Progress(success=success, stages=self._done, engaged=engaged)

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
        """One picture per view; a green ball marks a goal that is a place."""
        model = self.sim.env.model
        data = self.sim.env.data
        size = self.spec.image_hw[0]
        draw = shared_renderer(self.spec.name, model, size, size, STYLE).render
        markers = (Marker(position=tuple(self.sim.goal())),) if self._task.marker else ()
        return np.stack([draw(model, data, camera, markers) for camera in self._cameras])

    def proprio(self) -> np.ndarray:
        """Hand position (3), metres; opening (1); its move in the last step (3), metres."""
        moved = self._hand - self._last_hand
        return np.concatenate([self._hand, [self.sim.gripper()], moved]).astype(np.float32)

    def expert(self) -> Expert:
        """The expert of this task and its number of stages."""
        return make_expert(self._name, self.sim, self.spec.stages)
