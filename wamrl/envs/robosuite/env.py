"""robosuite: a simulated Panda arm that lifts, stacks, sorts and assembles.
Needs `pip install -e '.[robosuite]'`.

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

from wamrl.envs.base import EnvConfig, EnvSpec, Expert
from wamrl.envs.rendering import RenderStyle, shared_renderer
from wamrl.envs.robosuite.contact import engaged
from wamrl.envs.robosuite.expert import make_expert
from wamrl.envs.robosuite.simulation import CONTROL_HZ, Simulation, import_robosuite
from wamrl.envs.robosuite.tasks import TASKS, WRIST, known_tasks
from wamrl.envs.simulated import (
    Progress,
    Scene,
    SimulatedEnv,
    require_image_size,
    require_views,
)
from wamrl.runtime.ranges import Count, Pixels, check_ranges

VIEWS = ("front", "wrist")
# group 0 are shapes for collisions; the things' meshes stay as they are
STYLE = RenderStyle(hidden=(0,), keep_below=700)


@dataclass(frozen=True, kw_only=True)
class RobosuiteConfig(EnvConfig):
    """One task of robosuite 1.5 with a Panda."""

    task: str = "lift"
    image_size: Pixels = 64  # pixels, square
    views: tuple[str, ...] = ("front",)
    horizon: Count | None = None  # control steps; None: about twice what the expert needs

    def validate(self) -> None:
        """ValueError for an unknown task, or an impossible size, view or horizon."""
        check_ranges(self, "env")
        if self.task not in TASKS:
            raise ValueError(f"unknown robosuite task {self.task!r}: choose one of {known_tasks()}")
        require_image_size(self.image_size, 16, 512)
        require_views(self.views, VIEWS)

    def build(self) -> SimulatedEnv:
        """The environment; ValueError if robosuite is not installed."""
        self.validate()
        import_robosuite()
        return SimulatedEnv(RobosuiteScene(self))


class RobosuiteScene(Scene):
    """One task: its cameras, and what the policy is told of the arm.
    Rendering reads the simulation and never changes it, so skipping frames changes nothing.
    """

    carries = True

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
            control_hz=CONTROL_HZ,
        )
        self.sim = Simulation(task)
        self._cameras = tuple(task.front if view == "front" else WRIST for view in config.views)

    def reset(self, seed: int) -> None:
        """Put robosuite's own placement and joint noise, drawn from `seed`."""
        self.sim.reset(seed)

    def step(self, action: np.ndarray) -> Progress:
        """One control step of 50 ms; `stages` are the things that are placed now."""
        success, placed = self.sim.step(action)
        return Progress(success=success, stages=sum(placed), engaged=engaged(self.sim, placed))

    def render(self) -> np.ndarray:
        """One picture per view."""
        size = self.spec.image_hw[0]
        sim = self.sim
        draw = shared_renderer(self.spec.name, sim.model, size, size, STYLE).render
        return np.stack([draw(sim.model, sim.data, camera) for camera in self._cameras])

    def proprio(self) -> np.ndarray:
        """Position between the fingertips (3), its quaternion (4), both fingers (2)."""
        position, _ = self.sim.hand.pose()
        parts = [position, self.sim.quaternion(), self.sim.fingers()]
        return np.concatenate(parts).astype(np.float32)

    def expert(self) -> Expert:
        """The expert of this task."""
        return make_expert(self.sim)
