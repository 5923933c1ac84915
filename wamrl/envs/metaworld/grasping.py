"""Experts that grasp, carry and, when they lose the object, grasp again:
the phase is read off the state at every step.

MetaWorld's scripted policies leave the gripper half closed after a drop and then press on the
object from above. Here:
    held (both finger pads touch the object)  -> the task's own `carry` towards the goal
    hand around the grasp point, not held     -> close
    above the grasp point                     -> open and go down
    anywhere else                             -> open, rise if low, and go above the grasp point
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.metaworld.simulation import Simulation

GAIN = 15.0  # action per metre: full speed (1 cm per step) above 7 cm
Waypoint = Callable[[Simulation], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Grasp:
    """How to take hold of one task's object; metres, world axes."""

    body: str  # the body that the pads must touch
    point: Waypoint  # where the hand has to be to close, float64 (3,)
    carry: Waypoint  # where the hand goes while it holds, float64 (3,)
    hover: float = 0.1  # approach from this height above the grasp point
    radius: float = 0.015  # horizontal error allowed when going down and closing
    depth: float = 0.012  # vertical error allowed when closing
    # distance from the grasp point beyond which a touched object no longer counts as held
    slack: float = 0.07
    effort: float = 0.8  # gripper command while holding
    wall: float = np.inf  # beyond this y there is a wall in the fingers' way


class CarryExpert(Expert):
    """Grasp, carry, recover. Reads privileged state."""

    def __init__(self, sim: Simulation, grasp: Grasp) -> None:
        self._sim = sim
        self._grasp = grasp

    def action(self) -> np.ndarray:
        """Towards the next waypoint, float32 (4,) in [-1, 1]."""
        target, grip = self._plan()
        move = GAIN * (target - self._sim.hand())
        return np.clip([*move, grip], -1.0, 1.0).astype(np.float32)

    def _plan(self) -> tuple[np.ndarray, float]:
        """Where the hand should go, float64 (3,), and the gripper command."""
        sim = self._sim
        grasp = self._grasp
        hand = sim.hand()
        point = grasp.point(sim)
        error = point - hand
        aside = float(np.linalg.norm(error[:2]))
        above = -float(error[2])
        if np.linalg.norm(error) < grasp.slack and sim.held(grasp.body):
            return grasp.carry(sim), grasp.effort
        # near a wall a finger may come to rest on it, above the object:
        # close anyway, which draws the object away
        resting = above < 0.04 and abs(sim.env.data.body("hand").cvel[5]) < 0.08  # m/s
        stuck = point[1] > grasp.wall and resting
        if aside < grasp.radius and (abs(above) < grasp.depth or stuck):
            return point, grasp.effort
        if aside < grasp.radius:
            return point, -1.0
        hover = point + (0.0, 0.0, grasp.hover)
        low = above < 0.5 * grasp.hover and aside > 2 * grasp.radius
        return (np.array([*hand[:2], hover[2]]) if low else hover), -1.0


def body(name: str, *offset: float) -> Waypoint:
    """A point fixed to a body, `offset` in the world's axes."""
    return lambda sim: sim.env.data.body(name).xpos + np.array(offset)


def between(point: Waypoint, low: float, high: float) -> Waypoint:
    """The same point with y kept where the open fingers,
    6 cm to either side in y, fit between walls.
    """

    def clamped(sim: Simulation) -> np.ndarray:
        x, y, z = point(sim)
        return np.array([x, min(max(y, low), high), z])

    return clamped


def shift(sim: Simulation, tip: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the hand goes so that the held object's `tip` comes to `target`:
    it moves with the hand.
    """
    return sim.hand() + target - tip


def over(name: str, height: float, near: float = 0.04, drop: float = 0.0) -> Waypoint:
    """Lift the body to `height`, carry it there over the goal,
    then lower it to `drop` above the goal.
    """

    def carry(sim: Simulation) -> np.ndarray:
        tip = sim.env.data.body(name).xpos.copy()
        goal = sim.goal() + (0.0, 0.0, drop)
        if np.linalg.norm((goal - tip)[:2]) < near:
            return shift(sim, tip, goal)
        top = max(height, goal[2])
        if tip[2] < top - 0.03:
            return sim.hand() + (0.0, 0.0, top - tip[2])
        return shift(sim, tip, np.array([*goal[:2], top]))

    return carry


def straight(sim: Simulation) -> np.ndarray:
    """The puck straight to the goal."""
    tip = sim.env.data.body("obj").xpos.copy()
    goal = sim.goal()
    return shift(sim, tip, goal)


def into_shelf(sim: Simulation) -> np.ndarray:
    """In front of the shelf to the goal's height, then forward."""
    tip = sim.env.data.body("obj").xpos.copy()
    goal = sim.goal() + (0.0, 0.0, 0.02)
    aligned = abs(tip[0] - goal[0]) < 0.02 and abs(tip[2] - goal[2]) < 0.03
    if aligned:
        return shift(sim, tip, goal)
    return shift(sim, tip, np.array([goal[0], min(tip[1], goal[1] - 0.25), goal[2]]))


def into_hole(sim: Simulation) -> np.ndarray:
    """The peg's head in front of the hole, then along -x."""
    tip = sim.env.data.site("pegHead").xpos.copy()
    goal = sim.goal()
    aligned = np.linalg.norm((tip - goal)[1:]) < 0.012
    if aligned:
        return shift(sim, tip, goal - (0.05, 0.0, 0.0))
    return shift(sim, tip, np.array([max(goal[0] + 0.17, tip[0]), *goal[1:]]))


def onto_peg(sim: Simulation) -> np.ndarray:
    """The ring's centre above the peg, then down."""
    tip = sim.env.data.site("RoundNut").xpos.copy()
    goal = sim.goal()
    if np.linalg.norm((tip - goal)[:2]) < 0.02:
        return shift(sim, tip, goal - (0.0, 0.0, 0.1))
    high = goal[2] + 0.07
    return shift(sim, tip, np.array([*(tip[:2] if tip[2] < high - 0.03 else goal[:2]), high]))


def onto_nail(sim: Simulation) -> np.ndarray:
    """The hammer's head in front of the nail, then forward through it."""
    head = sim.env.data.geom("HammerHead").xpos.copy()
    nail = sim.env.data.site("nailHead").xpos.copy()
    aligned = abs(head[0] - nail[0]) < 0.03 and abs(head[2] - nail[2]) < 0.025
    return shift(sim, head, nail + (0.0, 0.1 if aligned else min(head[1] - nail[1], -0.12), 0.0))


def through_handle(sim: Simulation) -> np.ndarray:
    """The stick's end through the jug's handle along +x, then handle and all to the goal."""
    end = sim.env.data.site("stick_end").xpos.copy()
    handle = sim.env.data.site("insertion").xpos.copy()
    gap = end - handle
    if gap[0] > 0.0 and abs(gap[1]) < 0.04 and abs(gap[2]) < 0.06:
        return shift(sim, handle, np.array([*sim.goal()[:2], handle[2]]))
    if abs(gap[1]) < 0.015 and abs(gap[2]) < 0.02:
        return shift(sim, end, handle + (0.06, 0.0, 0.0))
    rise = gap[2] < -0.05
    aside = end[1] if rise else handle[1]
    return shift(sim, end, np.array([min(end[0], handle[0] - 0.06), aside, handle[2]]))


def lifted(sim: Simulation) -> np.ndarray:
    """Straight up."""
    return sim.hand() + (0.0, 0.0, 0.1)


def against_jug(sim: Simulation) -> np.ndarray:
    """The stick's end level with the jug and in front of it, then along +x, jug and all."""
    end = sim.env.data.site("stick_end").xpos.copy()
    jug = sim.env.data.site("insertion").xpos + (0.0, 0.09, 0.0)
    height = 0.12
    aligned = abs(end[1] - jug[1]) < 0.03 and abs(end[2] - height) < 0.03
    if aligned:
        return shift(sim, end, np.array([end[0] + 0.1, jug[1], height]))
    return shift(sim, end, np.array([min(end[0], jug[0] - 0.12), jug[1], height]))


GRASPS: dict[str, Grasp] = {
    "push": Grasp(
        body="obj",
        point=between(body("obj", -0.005, 0.0, 0.03), 0.4, 0.86),
        carry=straight,
        wall=0.8,
    ),
    "pick-place": Grasp(
        body="obj",
        point=between(body("obj", -0.005, 0.0, 0.03), 0.4, 0.86),
        carry=straight,
        wall=0.8,
    ),
    "pick-place-wall": Grasp(
        body="obj", point=body("obj", -0.005, 0.0, 0.03), carry=over("obj", 0.22)
    ),
    "shelf-place": Grasp(body="obj", point=body("obj", -0.005, 0.0, 0.02), carry=into_shelf),
    "bin-picking": Grasp(
        body="obj",
        point=between(body("obj", 0.0, 0.0, 0.03), 0.675, 0.725),
        carry=over("obj", 0.15),
    ),
    "basketball": Grasp(
        body="bsktball", point=body("bsktball", 0.0, 0.0, 0.015), carry=over("bsktball", 0.33)
    ),
    "peg-insert-side": Grasp(
        body="peg",
        point=lambda sim: sim.env.data.site("pegGrasp").xpos + (0.0, 0.0, 0.015),
        carry=into_hole,
    ),
    "assembly": Grasp(
        body="RoundNut",
        point=lambda sim: sim.env.data.site("RoundNut-8").xpos + (-0.02, 0.0, 0.03),
        carry=onto_peg,
    ),
    "disassemble": Grasp(
        body="RoundNut",
        point=lambda sim: sim.env.data.site("RoundNut-8").xpos + (-0.02, 0.0, 0.03),
        carry=lifted,
    ),
    "push-back": Grasp(body="obj", point=body("obj", -0.005, 0.0, 0.03), carry=straight),
    "hand-insert": Grasp(body="obj", point=body("obj", -0.005, 0.0, 0.03), carry=over("obj", 0.12)),
    "hammer": Grasp(body="hammer", point=body("hammer", -0.04, 0.0, 0.02), carry=onto_nail),
    "stick-pull": Grasp(body="stick", point=body("stick", -0.015, 0.0, 0.03), carry=through_handle),
    "stick-push": Grasp(body="stick", point=body("stick", -0.015, 0.0, 0.03), carry=against_jug),
}
