"""Where each of robosuite's things goes, and how it gets there once it is held."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import atan2, cos, pi, sin

import numpy as np

from wamrl.envs.robosuite.controller import rotation
from wamrl.envs.robosuite.grasping import (
    HOME,
    LEAST,
    MOST,
    closing_yaws,
    nearest,
    shape,
    wrap,
    yaw_of,
)
from wamrl.envs.robosuite.simulation import Simulation

UP = np.array([0.0, 0.0, 1.0])
# displacement of the hand (3,) in metres, of its yaw, whether to let go
Carry = tuple[np.ndarray, float, bool]


class Place(ABC):
    """One thing's destination."""

    floor = 0.8  # metres: height of what it lies on before

    def __init__(self, sim: Simulation, body: str) -> None:
        self._sim = sim
        self._body = body
        self._root = sim.model.body(f"{body}_main").id

    @abstractmethod
    def carry(self) -> Carry:
        """How to move while the thing is held."""

    def done(self) -> bool:
        """It is where it belongs, be the hand still at it or not."""
        return False

    def grasp_point(self) -> np.ndarray:
        """The middle of what the fingers close on, float64 (3,), metres."""
        return shape(self._sim, self._body).center

    def grasp_yaw(self, now: float) -> float:
        """Along which yaw the fingers should close, from the present one."""
        return nearest(closing_yaws(shape(self._sim, self._body)), now)

    def clearance(self, hand: np.ndarray) -> float:
        """Height, metres,
        above which the fingers' ends stay on their way to the thing from where the hand is.
        """
        return 0.0

    def possible(self) -> bool:
        """It has not fallen off the table."""
        return bool(self._sim.data.xpos[self._root, 2] > 0.7)

    def position(self) -> np.ndarray:
        """Where the thing is, float64 (3,), metres."""
        return self._sim.data.xpos[self._root].copy()


def place(sim: Simulation, body: str) -> Place:
    """The destination of the thing called `body`."""
    kinds = {"cube": Aloft, "cubeA": OnCube, "SquareNut": OnPeg, "RoundNut": OnPeg}
    return kinds.get(body, InBin)(sim, body)


class Aloft(Place):
    """Straight up."""

    def carry(self) -> Carry:
        """Up, and never let go."""
        return 0.1 * UP, 0.0, False


class OnCube(Place):
    """Above the other cube, down until it touches, let go."""

    def carry(self) -> Carry:
        """Up and aside first, then down."""
        thing = shape(self._sim, self._body)
        base = shape(self._sim, "cubeB")
        gap = thing.bottom - base.top
        aside = base.center - thing.center
        aside[2] = 0.0
        off = float(np.linalg.norm(aside))
        if off < 0.012:
            return aside - (gap + 0.002) * UP, 0.0, gap < 0.004
        if gap < 0.02:
            return (0.04 - gap) * UP + (aside if gap > 0.01 else 0.0), 0.0, False
        return aside + (0.04 - gap) * UP, 0.0, False

    def done(self) -> bool:
        """It lies on the other cube and the fingers are opening."""
        thing = shape(self._sim, self._body)
        base = shape(self._sim, "cubeB")
        off = float(np.linalg.norm((thing.center - base.center)[:2]))
        letting_go = self._sim.hand.fingers[0] > -0.95
        return off < 0.02 and abs(thing.bottom - base.top) < 0.012 and letting_go


class OnPeg(Place):
    """A nut's ring over its peg: lift, turn the square one, go above, down, let go."""

    # metres: height of the ring's centre over the pegs, error aside when going down
    ABOVE = 0.965
    NARROW = 0.005
    REACH = 0.74  # metres from the arm's base, horizontal, for the hand over the peg

    def __init__(self, sim: Simulation, body: str) -> None:
        super().__init__(sim, body)
        self._square = body == "SquareNut"
        self._peg = sim.model.body("peg1" if self._square else "peg2").id
        self._base = sim.model.body("robot0_base").pos[:2]

    def _offset(self) -> tuple[np.ndarray, float]:
        """From the ring's centre to the peg, horizontal,
        and the height of the centre above the table.
        """
        aside = self._sim.data.xpos[self._peg] - self.position()
        aside[2] = 0.0
        return aside, float(self.position()[2]) - self.floor

    def carry(self) -> Carry:
        """Up, aside and around first, then down, pulled towards the peg's axis."""
        aside, height = self._offset()
        off = float(np.linalg.norm(aside))
        spin = self._spin()
        threaded = off < 0.012 and height < 0.145
        if threaded or (off < self.NARROW and abs(spin) < 0.08):
            return aside - 0.05 * UP, spin, height < 0.06
        rise = (self.ABOVE + 0.01 - self.position()[2]) * UP
        if rise[2] > 0.02:
            return rise, spin, False
        return rise + aside + self._swing(spin), spin, False

    def _spin(self) -> float:
        """Yaw still to turn: until the square hole fits its peg,
        and until the hand over the peg is within reach.
        """
        sim = self._sim
        position, turned = sim.hand.pose()
        hand = yaw_of(turned)
        arm = (position - self.position())[:2]
        x, y, _ = sim.data.xmat[self._root].reshape(3, 3)[:, 0]
        first, step = (-atan2(y, x), pi / 2) if self._square else (0.0, pi / 4)
        spins = [wrap(first + k * step) for k in range(round(2 * pi / step))]
        peg = sim.data.xpos[self._peg][:2] - self._base

        def cost(spin: float) -> float:
            there = peg + rotation(spin * UP)[:2, :2] @ arm
            beyond = max(0.0, float(np.linalg.norm(there)) - self.REACH) / 0.01
            twisted = 0.0 if LEAST < hand + spin < MOST else 10.0
            return abs(spin) + 0.3 * abs(hand + spin - HOME) + twisted + beyond

        return min(spins, key=cost)

    def grasp_point(self) -> np.ndarray:
        """A little out from the handle's middle: the hand must not touch the peg."""
        handle = shape(self._sim, self._body)
        return handle.center + 0.008 * handle.axes[:, 0]

    def grasp_yaw(self, now: float) -> float:
        """Such that the hand is in its first posture when the handle points to the robot;
        else the other way.
        """
        x, y, _ = self._sim.data.xmat[self._root].reshape(3, 3)[:, 0]
        yaw = LEAST + (atan2(y, x) - pi / 2 - LEAST) % (2 * pi)
        return yaw if yaw < HOME + 2.4 else nearest([yaw], now)

    def _swing(self, spin: float) -> np.ndarray:
        """How far the hand moves when the nut turns about the ring's centre by a part of `spin`."""
        arm = self._sim.hand.pose()[0] - self.position()
        part = float(np.clip(spin, -0.15, 0.15))
        return part * np.array([-arm[1], arm[0], 0.0])

    def clearance(self, hand: np.ndarray) -> float:
        """Above the pegs where the hand is on their side of the table."""
        return 0.98 if hand[0] > 0.1 else 0.0

    def done(self) -> bool:
        """The ring is around its peg, and low."""
        aside, height = self._offset()
        # it is let go early, for the hand to be clear of the peg, and falls
        low = 0.07 if self._sim.held(self._body) or self._sim.hand.fingers[0] < 0.95 else 0.045
        return bool(np.linalg.norm(aside) < 0.02 and height < low)


class InBin(Place):
    """Over the walls into the quarter of the bin that is the thing's own."""

    floor = 0.82
    WALL = 0.9  # metres, height of the walls' upper edges
    Y_WALLS = (-0.5, 0.0, 0.03, 0.28, 0.53)  # metres, the walls of both bins
    X_WALLS = ((-0.1, 0.1, 0.3), (-0.1, 0.3))  # of the bin with quarters, of the other
    LOWEST = 0.88  # metres, height of the hand where its palm may come to rest on the walls
    # metres from the middle of the far quarter, which is at the end of the reach
    NEARER = np.array([0.05, 0.07])

    def __init__(self, sim: Simulation, body: str) -> None:
        super().__init__(sim, body)
        self._index = [obj.name for obj in sim.env.objects].index(body)
        # over the walls, or the others as well
        self._high = self.WALL + (0.03 if len(sim.task.things) == 1 else 0.1)
        self._target = sim.env.target_bin_placements[self._index][:2] - (
            self.NEARER if body == "Can" else 0.0
        )
        self._narrow_only = body == "Cereal"

    def carry(self) -> Carry:
        """Up and over the walls first, then down."""
        thing = shape(self._sim, self._body)
        aside = np.array([*(self._target - thing.center[:2]), 0.0])
        off = float(np.linalg.norm(aside))
        if off < 0.03:
            return aside - (thing.bottom - self.floor - 0.005) * UP, 0.0, self._low()
        # the far quarter cannot be reached from high above
        high = self._high if off > 0.12 else self.WALL + 0.03
        rise = (high + 0.02 - thing.bottom) * UP
        wait = thing.bottom < (self._high if thing.center[1] < 0.0 else self.WALL + 0.01)
        return (rise if wait else rise + aside), 0.0, False

    def grasp_yaw(self, now: float) -> float:
        """Such that neither fingers nor palm come down on a wall."""
        thing = shape(self._sim, self._body)
        yaws = closing_yaws(thing, self._narrow_only)
        if self._body == "Can" and abs(thing.axes[2, 2]) > 0.9:  # it stands and is round
            yaws = [yaws[0] + k * pi / 4 for k in range(4)]
        return nearest(yaws, now, lambda yaw: self._blocked(thing.center, yaw))

    def _blocked(self, center: np.ndarray, yaw: float) -> float:
        """10 for each finger, 1 for each end of the palm, that would come down on a wall."""
        count = 0.0
        for distance, weight in ((0.05, 10.0), (-0.05, 10.0), (0.09, 1.0), (-0.09, 1.0)):
            x = center[0] + distance * cos(yaw)
            y = center[1] + distance * sin(yaw)
            walls = [abs(y - wall) for wall in self.Y_WALLS] + [
                abs(x - wall) for wall in self.X_WALLS[int(y < 0.015)]
            ]
            count += weight * (min(walls) < 0.022)
        return count

    def clearance(self, hand: np.ndarray) -> float:
        """Above the walls."""
        return self._high

    def done(self) -> bool:
        """It is in its quarter, and let go or low enough for that."""
        inside = not self._sim.env.not_in_bin(self.position(), self._index)
        return inside and (not self._sim.held(self._body) or self._low())

    def _low(self) -> bool:
        """Low enough to let go."""
        bottom = shape(self._sim, self._body).bottom
        hand = self._sim.hand.pose()[0][2]
        return bottom < self.floor + 0.02 or (hand < self.LOWEST and bottom < self.floor + 0.05)
