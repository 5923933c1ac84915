"""Experts of the MetaWorld tasks: our own where something is grasped or reached, else MetaWorld's scripted policies."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.experts.carry import GAIN, GRASPS, CarryExpert
from wamrl.envs.metaworld_sim import Simulation

_MODULES = {"peg-insert-side": "peg_insertion_side"}  # where MetaWorld's file is not called like its task


def make_expert(task: str, sim: Simulation) -> Expert:
    """The expert for the scene that `sim` holds."""
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
        move = GAIN * (self._sim.goal() - self._sim.env.tcp_center)
        return np.clip([*move, 0.0], -1.0, 1.0).astype(np.float32)


class ScriptedExpert(Expert):
    """MetaWorld's own policy for a task."""

    def __init__(self, task: str, sim: Simulation) -> None:
        self._policy, self._sim = scripted_policy(task), sim

    def action(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its policies warn that their gains exceed what they know to be clipped
            action = self._policy.get_action(self._sim.observation())
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def scripted_policy(task: str) -> Any:
    """MetaWorld's policy object for `task`; it has no memory."""
    name = _MODULES.get(task, task.replace("-", "_"))
    module = import_module(f"metaworld.policies.sawyer_{name}_v3_policy")
    (cls,) = {v for k, v in vars(module).items() if k.startswith("Sawyer") and k.endswith("Policy")}
    return cls()
