"""When is robosuite's hand at its sub-goal? Read off the simulator's state."""

from __future__ import annotations

import numpy as np

from wamrl.envs.robosuite.grasping import shape
from wamrl.envs.robosuite.simulation import Simulation

# fingers that have closed this far, this near to a thing, have missed it
MISSED = 0.01  # metres between the fingers
BESIDE = 0.04  # metres


def engaged(sim: Simulation, placed: tuple[bool, ...]) -> bool:
    """A thing that is not placed is held, or the fingers have closed on nothing beside it.
    What this counts: `wamrl.envs.attempts`.
    """
    waiting = [body for body, done in zip(sim.task.things, placed, strict=True) if not done]
    if any(sim.held(body) for body in waiting):
        return True
    if sim.opening() > MISSED:
        return False
    hand, _ = sim.hand.pose()
    return any(float(np.linalg.norm(shape(sim, body).center - hand)) < BESIDE for body in waiting)
