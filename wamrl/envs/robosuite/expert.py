"""Experts for robosuite's tasks: grasp, carry, place, and after a drop again.
The phase is read off the state alone.

    placed, hand still at it           -> open and rise
    held (both fingers touch it)       -> the task's own `carry`
    hand around the grasp, aligned     -> close
    above the grasp, aligned           -> open and go down
    anywhere else                      -> open, rise if low, go above the grasp and turn

Several things are placed in the order of `ORDER`. Tolerances widen while the fingers are closing,
so that noise does not undo a grasp; the fingers' position is the only memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.robosuite.grasping import (
    PALM,
    TIPS,
    Shape,
    downward,
    shape,
    turn,
    wrap,
    yaw_of,
)
from wamrl.envs.robosuite.placing import Place, place
from wamrl.envs.robosuite.simulation import Simulation

ORDER = ("Milk", "Cereal", "Can", "Bread")  # tall things first: they are in the way of the palm
GAIN = 30.0  # action per metre
TURN_GAIN = 3.0  # action per radian
OPEN = -1.0
CLOSE = 1.0
# good enough to close:
NEAR = 0.012  # metres aside
DEEP = 0.012  # metres in height
ALIGNED = 0.12  # radians
HOVER = 0.08  # metres above the grasp
STRAIGHT = -0.3  # radians: beyond this the elbow joint (limit -0.07) is all but stretched
REACH = 0.73  # metres from the arm's base, horizontal
OVER = 0.92  # metres: height of the hand whose fingers are over the walls


def make_expert(sim: Simulation) -> Expert:
    """The expert for the scene that `sim` holds."""
    return PickExpert(sim)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the hand should do next."""

    point: np.ndarray  # float64 (3,), metres
    yaw: float  # of the closing axis
    grip: float


class PickExpert(Expert):
    """Reads privileged state."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._base = sim.model.body("robot0_base").pos.copy()
        self._places = {body: place(sim, body) for body in sim.task.things}

    def action(self) -> np.ndarray:
        """Towards the next waypoint, float32 (7,) in [-1, 1]."""
        position, turned = self._sim.hand.pose()
        yaw = yaw_of(turned)
        goal = self._plan(position, yaw)
        move = GAIN * (goal.point - position)
        # of more than half a turn the way that the wrist can
        part = float(np.clip(goal.yaw - yaw, -1.5, 1.5))
        spin = TURN_GAIN * turn(downward(yaw + part), turned)
        # the elbow is locked: fold it by tilting the hand and drawing it back
        if self._sim.data.qpos[3] > STRAIGHT:
            out = position - self._base
            out = np.array([out[0], out[1], 0.0]) / float(np.linalg.norm(out[:2]))
            move = -out
            spin = np.array([-out[1], out[0], 0.0])
        return np.clip([*move, *spin, goal.grip], -1.0, 1.0).astype(np.float32)

    def _plan(self, hand: np.ndarray, yaw: float) -> Goal:
        sim = self._sim
        for body, where in self._places.items():
            if where.done() and ((touched := sim.held(body)) or self._around(hand, body)):
                away = np.array([*where.grasp_point()[:2], hand[2] + (0.0 if touched else 0.04)])
                return Goal(point=away, yaw=yaw, grip=OPEN)
        waiting = sorted(
            (b for b, w in self._places.items() if not w.done() and w.possible()), key=_rank
        )
        if not waiting:
            return Goal(point=hand + (0.0, 0.0, 0.05), yaw=yaw, grip=OPEN)
        body = next((b for b in waiting if sim.held(b)), waiting[0])
        if sim.held(body):
            return self._carry(hand, yaw, self._places[body])
        return self._fetch(hand, yaw, shape(sim, body), self._places[body])

    def _around(self, hand: np.ndarray, body: str) -> bool:
        """The hand is still where it let go of a placed thing: its fingers are beside it."""
        thing = shape(self._sim, body)
        aside = float(np.linalg.norm((hand - thing.center)[:2]))
        return aside < 0.04 and hand[2] - TIPS < thing.top + 0.02

    def _drawn_in(self, hand: np.ndarray) -> np.ndarray:
        """Where the hand rises, (2,): straight up out of what is around it,
        then within reach from high above.
        """
        out = hand[:2] - self._base[:2]
        far = float(np.linalg.norm(out))
        return self._base[:2] + out * min(1.0, REACH / far) if hand[2] > OVER else hand[:2]

    def _carry(self, hand: np.ndarray, yaw: float, where: Place) -> Goal:
        move, spin, release = where.carry()
        return Goal(point=hand + move, yaw=yaw + spin, grip=OPEN if release else CLOSE)

    def _fetch(self, hand: np.ndarray, yaw: float, thing: Shape, where: Place) -> Goal:
        deep = max(thing.center[2], thing.top - PALM)
        point = np.array([*where.grasp_point()[:2], max(deep, where.floor + TIPS + 0.002)])
        goal_yaw = where.grasp_yaw(yaw)
        closing = self._sim.hand.fingers[0] < 0.95
        slack = 2.0 if closing else 1.0
        error = point - hand
        aside = float(np.linalg.norm(error[:2]))
        above = -float(error[2])
        askew = abs(wrap(goal_yaw - yaw))
        if aside < slack * NEAR and abs(above) < slack * DEEP and askew < slack * ALIGNED:
            return Goal(point=point, yaw=goal_yaw, grip=CLOSE)
        if aside < slack * NEAR and askew < slack * ALIGNED and not (closing and above > 0.03):
            return Goal(point=point, yaw=goal_yaw, grip=OPEN)
        top = max(point[2] + HOVER, where.clearance(hand) + TIPS)
        low = hand[2] < top - 0.03 and aside > 0.03
        if low:  # no turning: there may be walls and pegs on all sides
            return Goal(point=np.array([*self._drawn_in(hand), top]), yaw=yaw, grip=OPEN)
        return Goal(point=np.array([*point[:2], top]), yaw=goal_yaw, grip=OPEN)


def _rank(body: str) -> int:
    return ORDER.index(body) if body in ORDER else 0
