"""When is MetaWorld's hand at its sub-goal?
Three kinds of tasks, all read off the simulator's state (see `wamrl.envs.attempts`).

    Place  reach
        the point between the fingers is within `NEAR_GOAL` of the goal
    Grip   what is grasped
        the fingers are closed (opening < `CLOSED`), and both pads touch the object or the hand is
        within `NEAR_GRASP` of the grasp point: closing on nothing beside the object is a missed
        grasp, hence an attempt too
    Touch  buttons, drawers, doors
        from a contact of the hand (wrist, palm, fingers) with the object until the hand is `LEAVE`
        from where it last touched it; that place moves with the part that was touched, so a drawer
        that is batted on and caught up with is one attempt

Cost: benchmarks/attempts.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import dist

from wamrl.envs.metaworld.grasping import GRASPS, Grasp
from wamrl.envs.metaworld.simulation import Simulation

NEAR_GOAL = 0.1  # metres; twice the radius of success of `reach`
NEAR_GRASP = 0.06  # metres between the hand and where the expert would have it to close
# of the full opening: 1.0 open, 0.30 closed on nothing, 0.28 to 0.72 on the objects of the tasks
CLOSED = 0.75
LEAVE = 0.05  # metres


class ContactDetector(ABC):
    """Is the hand at its sub-goal now? Ask once per control step."""

    carries: bool  # see `wamrl.envs.attempts.AttemptCounter`

    @abstractmethod
    def engaged(self) -> bool:
        """The answer for the simulation's present state."""

    def forget(self) -> None:
        """Begin an episode: what was touched before does not count."""


def contact_detector(task: str, sim: Simulation, touch: str) -> ContactDetector:
    """The detector of `task` in the scene that `sim` holds.
    `touch`: the body of the mechanism that is worked on, "" where there is none.
    """
    if task in GRASPS:
        return Grip(sim, GRASPS[task])
    return Touch(sim, touch) if touch else Place(sim)


class Place(ContactDetector):
    """The goal is a place that the hand goes to."""

    carries = False

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def engaged(self) -> bool:
        """The hand is near the goal."""
        return dist(self._sim.pinch(), self._sim.goal()) < NEAR_GOAL


class Grip(ContactDetector):
    """The object is grasped."""

    carries = True

    def __init__(self, sim: Simulation, grasp: Grasp) -> None:
        self._sim = sim
        self._grasp = grasp

    def engaged(self) -> bool:
        """The fingers are closed on the object, or on nothing beside it."""
        sim = self._sim
        grasp = self._grasp
        if sim.gripper() >= CLOSED:
            return False
        return dist(sim.hand(), grasp.point(sim)) < NEAR_GRASP or sim.held(grasp.body)


class Touch(ContactDetector):
    """The mechanism is pushed or pulled without a grasp."""

    carries = False

    def __init__(self, sim: Simulation, body: str) -> None:
        self._sim = sim
        self._body = body
        self.forget()

    def forget(self) -> None:
        """Nothing has been touched yet."""
        # body touched last, the hand's place in its frame
        self._place: tuple[int, tuple[float, ...]] | None = None

    def engaged(self) -> bool:
        """The hand touches the mechanism, or is still where it last did."""
        sim = self._sim
        if (part := sim.touched(self._body)) is not None:
            self._place = part, sim.seen_from(part, sim.hand())
        elif (
            self._place is not None
            and dist(self._place[1], sim.seen_from(self._place[0], sim.hand())) > LEAVE
        ):
            self._place = None
        return self._place is not None
