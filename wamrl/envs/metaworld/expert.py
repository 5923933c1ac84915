"""Experts of the MetaWorld tasks: our own where something is grasped or reached,
else MetaWorld's scripted policies.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.metaworld.grasping import GAIN, GRASPS, CarryExpert
from wamrl.envs.metaworld.simulation import Simulation

PRESS_GAIN = 30.0  # action per metre
# where MetaWorld's file is not called like its task
_MODULES = {"peg-insert-side": "peg_insertion_side"}


def make_expert(task: str, sim: Simulation, stages: int = 1) -> Expert:
    """The expert for the scene that `sim` holds."""
    if task == "button-press" and stages > 1:
        return PressExpert(sim)
    if task in GRASPS:
        return CarryExpert(sim, GRASPS[task])
    if task == "reach":
        return ReachExpert(sim)
    return ScriptedExpert(task, sim)


class ReachExpert(Expert):
    """Straight to the goal with the point between the fingers; MetaWorld's own is half as fast."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def action(self) -> np.ndarray:
        """Towards the goal, float32 (4,) in [-1, 1]."""
        move = GAIN * (self._sim.goal() - self._sim.env.tcp_center)
        return np.clip([*move, 0.0], -1.0, 1.0).astype(np.float32)


class PressExpert(Expert):
    """Draw back, go in front of the button, press.
    MetaWorld's own, made for one press, slides along the next box.
    """

    # metres: hand in front of the button's face, and beside its axis
    CLEAR = 0.06
    ALIGNED = 0.02

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def action(self) -> np.ndarray:
        """Towards the next waypoint, float32 (4,) in [-1, 1]."""
        hand = self._sim.hand()
        button = self._sim.env._get_pos_objects() + (0.0, 0.0, -0.07)
        front = button[1] - self.CLEAR
        if np.linalg.norm((hand - button)[[0, 2]]) < self.ALIGNED:
            target = np.array([button[0], hand[1] + 0.1, button[2]])
        elif hand[1] > front + 0.02:
            target = np.array([hand[0], front, hand[2]])
        else:
            target = np.array([button[0], min(hand[1] + 0.1, front), button[2]])
        return np.clip([*(PRESS_GAIN * (target - hand)), 1.0], -1.0, 1.0).astype(np.float32)


class ScriptedExpert(Expert):
    """MetaWorld's own policy for a task."""

    def __init__(self, task: str, sim: Simulation) -> None:
        self._policy = scripted_policy(task)
        self._sim = sim

    def action(self) -> np.ndarray:
        """MetaWorld's action, clipped, float32 (4,)."""
        with warnings.catch_warnings():
            # its policies warn that their gains exceed what they know to be clipped
            warnings.simplefilter("ignore")
            action = self._policy.get_action(self._sim.observation())
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def scripted_policy(task: str) -> Any:
    """MetaWorld's policy object for `task`; it has no memory."""
    name = _MODULES.get(task, task.replace("-", "_"))
    module = import_module(f"metaworld.policies.sawyer_{name}_v3_policy")
    (cls,) = {v for k, v in vars(module).items() if k.startswith("Sawyer") and k.endswith("Policy")}
    return cls()
