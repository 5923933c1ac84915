"""A tiny environment without a simulator:
push a sliding disc onto a green goal and stop there. For tests and tries.

A damped point mass in the square [-1, 1]^2, lengths in half-widths of the square. In each control
step
    v <- 0.85 v + 0.02 a,   x <- x + v,   and v = 0 in the direction of a wall that is touched.
Actions, float32 (2,): push to the right and upwards. Proprioception, float32 (4,): position and
velocity. The goal is in the picture only. A sub-goal is reached within `RADIUS` of it at a speed
below `MAX_GOAL_SPEED`, so one has to brake; with `stages=K` the next goal appears then. An attempt
is a visit to the circle of `RADIUS` around the present goal.

With `both`, a green and a red goal lie on the board and only the instruction says which one counts:
`PointSuiteConfig` asks for either in the same scenes.

Example: `env = PointConfig(stages=2).build(); env.reset(0); frame = env.render()`
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le

from wamrl.envs.base import EnvConfig, EnvSpec, Expert
from wamrl.envs.simulated import (
    Progress,
    Scene,
    SimulatedEnv,
    require_image_size,
)
from wamrl.envs.suite import Member, SuiteConfig
from wamrl.runtime.ranges import Count, Pixels, check_ranges

RADIUS = 0.12  # half-widths of the square
MAX_GOAL_SPEED = 0.04  # half-widths per control step
DAMPING = 0.85  # of the velocity, per control step
PUSH = 0.02  # half-widths per control step that an action of 1 adds to the velocity
HORIZON = 40  # control steps per stage; the expert needs about 14
MAX_STAGES = 4
COLOURS = {"green": (30, 200, 60), "red": (220, 50, 40)}
_BLUE = (40, 70, 220)
_DARK = (150, 140, 130)
_LIGHT = (190, 180, 170)


@dataclass(frozen=True, kw_only=True)
class PointConfig(EnvConfig):
    """The point mass; everything has a default."""

    stages: Annotated[int, Ge(1), Le(MAX_STAGES)] = 1
    image_size: Pixels = 32  # pixels, square
    horizon: Count | None = None  # control steps; None: 40 per stage
    colour: Literal["green", "red"] = "green"  # of the goal
    both: bool = False  # a goal of the other colour lies on the board, too

    def validate(self) -> None:
        """ValueError for an impossible number of stages, size or horizon."""
        check_ranges(self, "env")
        require_image_size(self.image_size, 8, 512)
        if self.both and self.stages > 1:
            raise ValueError("env.both goes with env.stages=1: later goals have one colour")

    def build(self) -> SimulatedEnv:
        """The environment; it needs nothing but numpy."""
        self.validate()
        return SimulatedEnv(PointScene(self))


@dataclass(frozen=True, kw_only=True)
class PointSuiteConfig(SuiteConfig):
    """Two tasks in the same scenes, told apart by the instruction alone."""

    image_size: Pixels = 32  # pixels, square

    def members(self) -> tuple[Member, ...]:
        """To the green goal, to the red one."""
        found = []
        for colour in COLOURS:
            env = PointConfig(image_size=self.image_size, colour=colour, both=True)
            spec = env.build().spec
            member = Member(
                name=colour, env=env, instruction=spec.instruction, horizon=spec.horizon
            )
            found.append(member)
        return tuple(found)


class PointScene(Scene):
    """The disc, its goals and the walls."""

    carries = False

    def __init__(self, config: PointConfig) -> None:
        self.spec = EnvSpec(
            name="point",
            instruction=f"bring the blue disc to the {config.colour} goal and stop there",
            views=("top",),
            image_hw=(config.image_size, config.image_size),
            action_dim=2,
            proprio_dim=4,
            horizon=config.horizon or HORIZON * config.stages,
            stages=config.stages,
        )
        self._colour = config.colour
        self._both = config.both

    def reset(self, seed: int) -> None:
        """Draw where the disc and the goals are, from `seed` alone."""
        rng = np.random.default_rng(seed)
        self.position = rng.uniform(-0.8, 0.8, 2)
        self.velocity = np.zeros(2)
        self._goals = _draw_goals(rng, self.position, self.spec.stages)
        # The scene of a seed is the same whichever goal is asked for.
        other = _draw_other(rng, self.position, self._goals[0]) if self._both else None
        self._other = other
        if self._both and self._colour == "red":
            self._other = self._goals[0]
            self._goals = other[None]
        self._done = 0

    @property
    def goal(self) -> np.ndarray:
        """The present goal, float64 (2,)."""
        return self._goals[min(self._done, self.spec.stages - 1)]

    def step(self, action: np.ndarray) -> Progress:
        """Push the disc, let it slide, and see whether it stopped at the goal."""
        self.velocity = DAMPING * self.velocity + PUSH * action
        moved = self.position + self.velocity
        self.position = np.clip(moved, -1.0, 1.0)
        self.velocity[moved != self.position] = 0.0
        near = bool(np.linalg.norm(self.position - self.goal) < RADIUS)
        solved = near and bool(np.linalg.norm(self.velocity) < MAX_GOAL_SPEED)
        self._done += int(solved)
        return Progress(success=self._done == self.spec.stages, stages=self._done, engaged=near)

    def render(self) -> np.ndarray:
        """The blue disc and the present goal on a checkered board."""
        size = self.spec.image_hw[0]
        x, y, board = _canvas(size)
        picture = board.copy()
        discs = [(self.goal, RADIUS + 0.06, COLOURS[self._colour]), (self.position, 0.15, _BLUE)]
        if self._both:
            unasked = "green" if self._colour == "red" else "red"
            discs.insert(0, (self._other, RADIUS + 0.06, COLOURS[unasked]))
        for centre, radius, colour in discs:
            distance = np.hypot(x - centre[0], y - centre[1])
            # soft edge of one pixel
            cover = np.clip((radius - distance) * size / 2 + 0.5, 0.0, 1.0)[..., None]
            picture += cover * (np.array(colour, np.float32) - picture)
        return np.rint(picture).astype(np.uint8)[None]

    def proprio(self) -> np.ndarray:
        """Position (2) and velocity (2) of the disc."""
        return np.concatenate([self.position, self.velocity]).astype(np.float32)

    def expert(self) -> Expert:
        """The expert that pulls the disc to the present goal."""
        return PointExpert(self)


class PointExpert(Expert):
    """Spring and brake towards the present goal,
    from the present state alone, so any disturbance is corrected.
    """

    def __init__(self, scene: PointScene) -> None:
        self._scene = scene

    def action(self) -> np.ndarray:
        """6 (goal - x) - 18 v, clipped, float32 (2,)."""
        scene = self._scene
        pull = 6.0 * (scene.goal - scene.position) - 18.0 * scene.velocity
        return np.clip(pull, -1.0, 1.0).astype(np.float32)


def _draw_goals(rng: np.random.Generator, start: np.ndarray, count: int) -> np.ndarray:
    """`count` goals, each at least 0.6 from the one before, float64 (count, 2)."""
    goals = []
    for _ in range(count):
        last = goals[-1] if goals else start
        goal = rng.uniform(-0.8, 0.8, 2)
        while np.linalg.norm(goal - last) < 0.6:
            goal = rng.uniform(-0.8, 0.8, 2)
        goals.append(goal)
    return np.array(goals)


def _draw_other(rng: np.random.Generator, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """A second goal, at least 0.6 from the disc and from the first one, float64 (2,)."""
    while True:
        other = rng.uniform(-0.8, 0.8, 2)
        if min(np.linalg.norm(other - start), np.linalg.norm(other - goal)) >= 0.6:
            return other


@cache
def _canvas(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x to the right and y upwards at the pixel centres, float32 (H, W),
    and a checkered board, float32 (H, W, 3).
    """
    edge = 1.15  # a little more than the square, so that a disc at the wall is seen whole
    centres = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * edge
    x, y = np.meshgrid(centres, -centres)
    dark = (np.floor(x * 2) + np.floor(y * 2)) % 2 == 0
    return x, y, np.where(dark[..., None], _DARK, _LIGHT).astype(np.float32)
