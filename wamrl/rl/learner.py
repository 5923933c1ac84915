"""What a learner is: the rule by which the actor improves from what it has tried.

One learner is one file: a config that builds it, and the class. A run takes the one that its
recipe names in `TrainConfig.learner`; PPO (`ppo.py`) and GRPO (`grpo.py`) are ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.rollout.types import Rollout


class Learner(ABC):
    """Decides with what noise to explore, and turns rollouts into a better actor."""

    def exploration(self, flow: FlowConfig, progress: float) -> FlowConfig:
        """The noise to act with at `progress` in [0, 1] of the run: annealed as its settings say.

        What it returns is also what `update` is given: ratios are taken under the noise that acted.
        """
        return flow.at(progress)

    @abstractmethod
    def update(
        self,
        wam: WAM,
        rollout: Rollout,
        reward: Tensor,
        flow: FlowConfig,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Improve `wam.actor` in place; returns metrics `actor/...` (docs/metrics.md).

        rollout: outcomes of all ranks and the M decisions of this one, made by `wam` as it is now.
        reward: float32 (M,), of each decision. flow: the noise that acted. generator: the only
        source of randomness, in the same state on every rank and left so. Called by all ranks.
        """

    @abstractmethod
    def state_dict(self) -> dict:
        """Everything that a bitwise resume needs, for `runtime.checkpoint`."""

    @abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True, kw_only=True)
class LearnerConfig(ABC):
    """Settings of a learner; subclass it beside the class that it builds."""

    least_group: ClassVar[int] = 1  # episodes that must share an initial state

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""

    def small(self) -> LearnerConfig:
        """The same, as cheap as it can be: for `--smoke`."""
        return self

    @abstractmethod
    def build(self, wam: WAM) -> Learner:
        """The learner of `wam.actor`, on the device where `wam` is."""
