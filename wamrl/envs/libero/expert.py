"""Picks things up and puts them where LIBERO's goal wants them;
the phase is read off the state at every step.

    held (both fingers touch it, no longer closing)  -> up, over the target, down, open
    around the grasp point, not yet held             -> close
    above the grasp point, turned right              -> open and go down
    anywhere else                                    -> open, rise if low, go above the grasp point
So a thing that was dropped or pushed is approached again.
The fingers close across the thing's narrow side.

Reads privileged state: poses and collision shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, pi, sin

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.libero.assets import Task
from wamrl.envs.libero.simulation import Simulation

MOVE = 20.0  # action per metre: 1 is 5 cm
TURN = 2.0  # action per radian: 1 is 0.5 rad
OPEN = -1.0
CLOSE = 1.0
HOVER = 0.07  # metres above a thing while going there
CLEARANCE = 0.03  # metres between what is carried and what it is carried over
ASIDE = 0.012  # metres allowed when going down
TILT = 0.12  # radians allowed when going down
FINGER = 0.012  # metres from the grip site to the fingertips
WIDEST = 0.074  # metres that fit between the open fingers
# metres: half sides along and across the closing direction; above the grip
PALM = (0.11, 0.04)
PALM_HEIGHT = 0.035
FINGERTIP = (0.015, 0.018)  # half sides, 5 cm to either side when open
# metres from the way to the middle of a thing that the hand or what it carries might hit
BESIDE = 0.15
STILL = 0.03  # m/s below which the fingers have stopped closing
# suite -> tasks that were measured, see docs/libero.md
TASKS = {"object": tuple(range(10)), "10": (0, 1, 7)}


def make_expert(task: Task, sim: Simulation) -> Expert:
    """The expert for one of `TASKS`."""
    if task.index not in TASKS.get(task.suite, ()):
        raise ValueError(
            f"libero-{task.suite}/{task.index} has no scripted expert (there is one for suite "
            "object, and for tasks "
            f"{', '.join(map(str, TASKS['10']))} of suite 10): bring demonstrations of your own"
        )
    return PickPlaceExpert(sim)


@dataclass(frozen=True)
class Shape:
    """A thing's collision shape now: corners of its parts' boxes,
    float64 (G, 8, 3), metres, world axes.
    """

    corners: np.ndarray

    @property
    def top(self) -> float:
        return float(self.corners[..., 2].max())

    @property
    def bottom(self) -> float:
        return float(self.corners[..., 2].min())

    @property
    def centre(self) -> np.ndarray:
        """The middle of its bounding box, seen from above, float64 (2,)."""
        flat = self.corners[..., :2].reshape(-1, 2)
        return (flat.min(0) + flat.max(0)) / 2

    def at(self, height: float, margin: float = 0.01) -> np.ndarray:
        """Corners, float64 (N, 2), of the parts that reach this height."""
        low = self.corners[..., 2].min(1)
        high = self.corners[..., 2].max(1)
        there = (low < height + margin) & (high > height - margin)
        return self.corners[there if there.any() else slice(None)][..., :2].reshape(-1, 2)

    def above(self, height: float) -> np.ndarray:
        """Points, float64 (N, 2), of the parts that reach beyond this height:
        corners, middles of edges and centres.
        """
        parts = self.corners[self.corners[..., 2].max(1) > height][..., :2]
        between = (parts[:, :, None] + parts[:, None]) / 2
        return between.reshape(-1, 2)


CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def shape_of(sim: Simulation, name: str) -> Shape:
    """The shape of the object or fixture `name`."""
    geoms = sorted(sim.geoms_of(name))
    boxes = sim.model.geom_aabb[geoms]
    local = boxes[:, None, :3] + CORNERS * boxes[:, None, 3:]
    turns = sim.data.geom_xmat[geoms].reshape(-1, 3, 3)
    return Shape(np.einsum("gij,gcj->gci", turns, local) + sim.data.geom_xpos[geoms][:, None])


@dataclass(frozen=True)
class Grasp:
    """Where the grip site has to be to close, float64 (3,),
    and the direction in which the fingers close, radians.
    """

    point: np.ndarray
    yaw: float


class PickPlaceExpert(Expert):
    """All conjuncts of the goal, one after the other: `in` and `on` of movable things."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def action(self) -> np.ndarray:
        """Towards the next waypoint, float32 (7,) in [-1, 1]."""
        point, yaw, grip = self._plan()
        move = MOVE * (point - self._sim.hand())
        turn = TURN * turn_to(self._sim.hand_axes(), yaw)
        return np.clip([*move, *turn, grip], -1.0, 1.0).astype(np.float32)

    def _plan(self) -> tuple[np.ndarray, float, float]:
        """Where the grip site should go, float64 (3,),
        the closing direction, and the gripper's command.
        """
        sim = self._sim
        hand = self._sim.hand()
        yaw = self._yaw()
        todo = [goal for goal, done in zip(sim.goals, sim.solved(), strict=True) if not done]
        if not todo:
            return hand, yaw, OPEN
        held = [goal for goal in todo if sim.held(goal[1]) and sim.opening() < WIDEST]
        if held:
            point, grip = self._carry(held[0])
            return point, yaw, grip
        return self._approach(todo[0][1])

    # ---- not held
    def _approach(self, name: str) -> tuple[np.ndarray, float, float]:
        sim = self._sim
        hand = self._sim.hand()
        shape = shape_of(sim, name)
        grasp = self._grasp(name, shape)
        aside = float(np.linalg.norm((grasp.point - hand)[:2]))
        above = float(hand[2] - grasp.point[2])
        turned = abs(nearest(grasp.yaw - self._yaw())) < TILT
        if aside < 2 * ASIDE and abs(above) < 0.012 and turned:
            return grasp.point, grasp.yaw, CLOSE
        if aside < ASIDE * (1 + max(0.0, above) / HOVER) and turned:
            return grasp.point, grasp.yaw, OPEN
        height = max(shape.top + HOVER, self._highest(hand, grasp.point, name) + FINGER + 0.02)
        if hand[2] < height - 0.03 and aside > 0.02:
            return np.array([*hand[:2], height]), self._yaw() if aside > 0.1 else grasp.yaw, OPEN
        return np.array([*grasp.point[:2], height]), grasp.yaw, OPEN

    def _grasp(self, name: str, shape: Shape) -> Grasp:
        tall = shape.top - shape.bottom
        height = shape.top - min(0.035, tall / 2)
        height = max(height, shape.bottom + FINGER)
        others = self._others(name)
        near_palm = np.concatenate([o.above(height + PALM_HEIGHT) for o in others])
        near_fingers = np.concatenate([o.above(height - FINGER) for o in others])
        return best_grasp(shape.at(height), self._yaw(), height, near_palm, near_fingers)

    # ---- held
    def _carry(self, goal: list[str]) -> tuple[np.ndarray, float]:
        sim = self._sim
        hand = self._sim.hand()
        speed = float(np.abs(sim.data.qvel[sim.env.robots[0]._ref_gripper_joint_vel_indexes]).max())
        if speed > STILL:
            return hand, CLOSE  # lifting before the grip is firm drops it
        shape = shape_of(sim, goal[1])
        place, rim = self._target(goal)
        aside = place - shape.centre
        over = max(rim, self._highest(hand, place, goal[1], goal[2]))
        drop = over + CLEARANCE - shape.bottom  # how much higher it has to be
        if np.linalg.norm(aside) < 0.02:
            lower = 0.005 if goal[0] == "on" else CLEARANCE
            if shape.bottom < rim + lower + 0.008:
                return hand, OPEN
            return hand + np.array([*aside, rim + lower - shape.bottom]), CLOSE
        if drop > 0.02:
            return hand + np.array([0.0, 0.0, drop + 0.02]), CLOSE
        return hand + np.array([*aside, drop]), CLOSE

    def _target(self, goal: list[str]) -> tuple[np.ndarray, float]:
        """Where the thing's centre should come to, float64 (2,), and the height it has to clear."""
        sim = self._sim
        where = goal[2]
        if where in sim.env.object_sites_dict:
            place = sim.data.site(where).xpos[:2].copy()
            owner = sim.env.object_sites_dict[where].parent_name
            if owner in sim.env.obj_body_id:
                return place, shape_of(sim, owner).top
            return place, float(sim.data.site(where).xpos[2])
        return sim.position(where)[:2], shape_of(sim, where).top

    def _others(self, *names: str) -> list[Shape]:
        """The shapes of all movable things but those named, or those that own the region named."""
        objects = self._sim.env.objects_dict
        return [
            shape_of(self._sim, other)
            for other in objects
            if not any(name.startswith(other) for name in names)
        ]

    def _highest(self, start: np.ndarray, end: np.ndarray, *but: str) -> float:
        """How high the things beside the straight way from `start` to `end` reach;
        metres, -inf when there are none.
        """
        a = start[:2]
        way = end[:2] - start[:2]
        reach = -np.inf
        for other in self._others(*but):
            share = np.clip((other.centre - a) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
            if np.linalg.norm(a + share * way - other.centre) < BESIDE:
                reach = max(reach, other.top)
        return reach

    def _yaw(self) -> float:
        x, y, _ = self._sim.hand_axes()[:, 0]
        return atan2(y, x)


def nearest(angle: float) -> float:
    """The angle modulo half a turn (two fingers are alike), in [-pi / 2, pi / 2)."""
    return (angle + pi / 2) % pi - pi / 2


def best_grasp(
    flat: np.ndarray, now: float, height: float, palm: np.ndarray, fingers: np.ndarray
) -> Grasp:
    """Across the narrow side of corners (N, 2), as near to the direction `now` as it may be, and
    clear of other things: points (M, 2) that the palm would hit, and points (K, 2) that the open
    fingers would hit."""
    best = Grasp(np.zeros(3), now)
    least = np.inf
    for step in range(-18, 18):
        yaw = now + step * pi / 36
        # along the closing direction, across it
        axes = np.array([[cos(yaw), sin(yaw)], [-sin(yaw), cos(yaw)]])
        mine = flat @ axes.T
        at_palm = palm @ axes.T
        at_fingers = fingers @ axes.T
        low = mine.min(0)
        high = mine.max(0)
        width = float(high[0] - low[0])
        middle = (low + high) / 2
        cost = width + 0.006 * abs(step * pi / 36) + 10.0 * max(0.0, width - WIDEST)
        room = max(0.0, float(high[1] - low[1]) / 2 - 0.015)
        for aside in sorted({0.0, *(np.clip((-0.024, -0.012, 0.012, 0.024), -room, room))}):
            centre = middle + (0.0, aside)
            hit = inside(at_palm - centre, PALM)
            hit += inside(np.abs(at_fingers - centre) - (0.05, 0.0), FINGERTIP)
            if cost + 0.1 * abs(aside) + 3.0 * hit < least:
                least = cost + 0.1 * abs(aside) + 3.0 * hit
                best = Grasp(np.array([*(centre @ axes), height]), yaw)
    return best


def inside(points: np.ndarray, half: tuple[float, float]) -> float:
    """How deep the deepest of points (N, 2) lies in the rectangle with these half sides;
    0 when all are outside.
    """
    return float(max(0.0, np.max(np.min(np.array(half) - np.abs(points), axis=1), initial=0.0)))


def turn_to(axes: np.ndarray, yaw: float) -> np.ndarray:
    """The rotation vector, float64 (3,), world axes,
    from the hand's axes (3, 3) to straight down at this yaw.
    """
    now = atan2(axes[1, 0], axes[0, 0])
    yaw = now + nearest(yaw - now)
    want = np.array([[cos(yaw), sin(yaw), 0.0], [sin(yaw), -cos(yaw), 0.0], [0.0, 0.0, -1.0]])
    turn = want @ axes.T
    vector = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    vector /= 2
    size = float(np.linalg.norm(vector))
    angle = atan2(size, (np.trace(turn) - 1) / 2)
    return vector * (angle / size) if size > 1e-9 else np.zeros(3)
