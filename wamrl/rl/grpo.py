"""GRPO (DeepSeekMath, arXiv 2402.03300):
episodes of one initial state are compared with each other; no value head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.rl.advantage import group_relative, scaled
from wamrl.rl.batch import PolicyBatch
from wamrl.rl.learner import Learner
from wamrl.rl.policy import ClippedPolicy, ClippedPolicyConfig
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(ClippedPolicyConfig):
    """The clipped policy; needs `initial_states.group` >= 2."""

    least_group: ClassVar[int] = 2

    def build(self, wam: WAM) -> GRPO:
        self.validate()
        return GRPO(self, wam)


class GRPO(Learner):
    """Every chunk of an episode has the episode's advantage among those of its initial state.

    Groups whose episodes all succeed or all fail are left out.
    """

    def __init__(self, cfg: GRPOConfig, wam: WAM):
        self.cfg = cfg
        self.policy = ClippedPolicy(cfg, wam)

    def update(
        self,
        wam: WAM,
        rollout: Rollout,
        reward: Tensor,
        flow: FlowConfig,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """See `Learner.update`; no metrics where no group has both outcomes."""
        decisions = rollout.decisions
        score = torch.zeros(len(rollout.success)).index_add_(0, decisions.episode, reward)
        advantage, mixed = group_relative(dist.all_sum(score), rollout.success, rollout.state)
        kept = mixed[decisions.episode]
        batch = PolicyBatch(
            obs=decisions.obs,
            plan=decisions.plan,
            mask=decisions.mask,
            advantage=advantage[decisions.episode],
        )[kept]
        if dist.offset_and_count(len(batch))[1] == 0:
            return {}
        metrics = {"actor/first_log_ratio": self.policy.first_ratio(wam, batch, flow)}
        if not advantage[mixed].any():
            return metrics  # the same reward for all: there is nothing to prefer
        batch.advantage.copy_(scaled(batch.advantage, self.cfg.min_scale, centre=False))
        return metrics | self.policy.improve(wam, batch, flow, generator)

    def state_dict(self) -> dict:
        return self.policy.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.policy.load_state_dict(state)
