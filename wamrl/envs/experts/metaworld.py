"""Experts of the MetaWorld tasks: its scripted policies, which see the full state."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from wamrl.envs.base import Expert
from wamrl.envs.experts.carry import GRASPS, CarryExpert
from wamrl.envs.metaworld_sim import Simulation

_MODULES = {"peg-insert-side": "peg_insertion_side"}  # where MetaWorld's file is not called like its task


def make_expert(task: str, sim: Simulation) -> Expert:
    """The expert for the scene that `sim` holds."""
    if task in GRASPS:
        return CarryExpert(sim, GRASPS[task])
    return ScriptedExpert(task, sim)


class ScriptedExpert(Expert):
    """MetaWorld's own policy for a task."""

    def __init__(self, task: str, sim: Simulation) -> None:
        self._policy, self._sim = scripted_policy(task), sim

    def action(self) -> np.ndarray:
        return np.clip(self._policy.get_action(self._sim.observation()), -1.0, 1.0).astype(np.float32)


def scripted_policy(task: str) -> Any:
    """MetaWorld's policy object for `task`; it has no memory."""
    name = _MODULES.get(task, task.replace("-", "_"))
    module = import_module(f"metaworld.policies.sawyer_{name}_v3_policy")
    (cls,) = {v for k, v in vars(module).items() if k.startswith("Sawyer") and k.endswith("Policy")}
    return cls()
