"""How to take hold of a thing that lies or stands anywhere:
where the fingers go, and which way they close.

The hand points straight down and closes along one horizontal axis of the thing, a narrow one.
Angles are yaws of the closing axis (the x axis of robosuite's grip site) in the world, radians; the
fingers do not care for half turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atan2, pi

import numpy as np

from wamrl.envs.robosuite.controller import rotation
from wamrl.envs.robosuite.simulation import Simulation

HOME = pi / 2  # yaw of the closing axis in the arm's first posture
LEAST = HOME - 1.8  # the smallest yaw that the wrist's joint reaches
MOST = HOME + 2.9  # the largest
GRASPABLE = 0.035  # metres, half a width that fits between the open fingers with room to spare
TIPS = 0.016  # metres from the grip site down to the fingers' ends
PALM = 0.026  # metres from the grip site up to where the palm would touch


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A thing's box in the world: the part of it that is grasped."""

    center: np.ndarray  # float64 (3,), metres
    axes: np.ndarray  # float64 (3, 3), columns are the box's axes
    half: np.ndarray  # float64 (3,), half its edges, metres

    @property
    def top(self) -> float:
        return float(self.center[2] + np.abs(self.axes[2]) @ self.half)

    @property
    def bottom(self) -> float:
        return float(self.center[2] - np.abs(self.axes[2]) @ self.half)


def shape(sim: Simulation, body: str) -> Shape:
    """The box of a thing's last colliding geom: its only one, or the handle of a nut."""
    geom = sim.parts(body)[-1]
    data = sim.data
    axes = data.geom_xmat[geom].reshape(3, 3).copy()
    box = sim.model.geom_aabb[geom]
    return Shape(center=data.geom_xpos[geom] + axes @ box[:3], axes=axes, half=box[3:].copy())


def closing_yaws(thing: Shape, narrow_only: bool = False) -> list[float]:
    """Yaws of the horizontal axes along which the fingers may close;
    one at least. `narrow_only`: the best one.
    """
    upright = int(np.argmax(np.abs(thing.axes[2])))
    flat = sorted((i for i in range(3) if i != upright), key=lambda i: thing.half[i])
    good = flat[:1] if narrow_only else [i for i in flat if thing.half[i] < GRASPABLE] or flat[:1]
    return [atan2(thing.axes[1, i], thing.axes[0, i]) for i in good]


def nearest(
    yaws: list[float], now: float, bad: Callable[[float], float] = lambda yaw: 0.0
) -> float:
    """Of all yaws + k pi in the wrist's reach the one near the present yaw,
    not far from `HOME`, and least `bad`.
    """
    turns = [yaw + k * pi for yaw in yaws for k in range(-6, 7)]
    choice = [t for t in turns if LEAST < t < MOST]
    return min(choice, key=lambda yaw: abs(yaw - now) + 0.3 * abs(yaw - HOME) + bad(yaw))


def yaw_of(turned: np.ndarray) -> float:
    """Yaw of the hand's closing axis, in the turn that the wrist's joint reaches."""
    least = (LEAST + MOST) / 2 - pi
    return least + (atan2(turned[1, 0], turned[0, 0]) - least) % (2 * pi)


def wrap(angle: float) -> float:
    """The same angle in [-pi, pi), radians."""
    return (angle + pi) % (2 * pi) - pi


def downward(yaw: float) -> np.ndarray:
    """The rotation (3, 3) of a hand that points down and closes along `yaw`."""
    return rotation(np.array([0.0, 0.0, yaw])) @ np.diag([1.0, -1.0, -1.0])


def turn(goal: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Axis-angle vector (3,) of goal now^T, radians."""
    a = goal @ now.T
    axis = np.array([a[2, 1] - a[1, 2], a[0, 2] - a[2, 0], a[1, 0] - a[0, 1]])
    sine = float(np.linalg.norm(axis)) / 2
    cosine = (float(np.trace(a)) - 1) / 2
    return np.zeros(3) if sine < 1e-9 else axis / (2 * sine) * atan2(sine, cosine)
