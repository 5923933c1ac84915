"""PPO (Schulman et al. 2017) on the Flow-SDE chain: advantages by GAE with a value head."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.rl.advantage import control_variate, gae, group_baseline, scaled
from wamrl.rl.batch import PolicyBatch
from wamrl.rl.learner import Learner
from wamrl.rl.policy import ClippedPolicy, ClippedPolicyConfig
from wamrl.rl.value import Critic, ValueConfig
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.runtime.ranges import Count, CountOrZero, Fraction, LearningRate

NO_SPREAD = 1e-6  # returns that differ by no more give nothing to prefer


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ClippedPolicyConfig):
    """The clipped policy, and how its advantages are estimated."""

    gamma: Fraction = 0.99  # per chunk
    lam: Fraction = 0.95
    group_baseline: bool = True  # also take off the mean of the other episodes of the state
    value_lr: LearningRate = 1e-3
    value_warmup: CountOrZero = 1  # iterations that train only the value head
    # at most, in each of these; ends when unseen initial states gain no more
    value_epochs: Count = 40
    value: ValueConfig = field(default_factory=ValueConfig)

    def build(self, wam: WAM) -> PPO:
        self.validate()
        return PPO(self, wam)


class PPO(Learner):
    """The clipped policy and its critic."""

    def __init__(self, cfg: PPOConfig, wam: WAM):
        self.cfg = cfg
        adam = {"lr": cfg.value_lr, "eps": cfg.eps, "grad_norm": cfg.grad_norm}
        self.critic = Critic(cfg.value, wam, batch=cfg.batch, **adam)
        self.policy = ClippedPolicy(cfg, wam)
        self.updates = 0  # so far, those that trained the value head only included

    def update(
        self,
        wam: WAM,
        rollout: Rollout,
        reward: Tensor,
        flow: FlowConfig,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """See `Learner.update`. The policy is left alone while the value head warms up, and where
        no return differs from another: dividing by the scale would blow up rounding.
        """
        cfg = self.cfg
        decisions = rollout.decisions
        inputs = self.critic.inputs(wam, rollout)
        value = self.critic.values(inputs)
        # Running out of time is part of the task and the value head sees the clock:
        # nothing to bootstrap.
        nothing = torch.zeros_like(value)
        returns, _ = gae(reward, nothing, decisions.episode, nothing, cfg.gamma, 1.0)
        advantage, _ = gae(reward, value, decisions.episode, nothing, cfg.gamma, cfg.lam)
        metrics = {}
        if cfg.group_baseline:
            baseline = group_baseline(advantage, decisions, rollout.state)
            share = control_variate(advantage, baseline)
            advantage = advantage - share * baseline
            metrics["actor/group_baseline"] = share
        batch = PolicyBatch(
            obs=decisions.obs,
            plan=decisions.plan,
            mask=decisions.mask,
            advantage=scaled(advantage, cfg.min_scale, centre=True),
        )
        metrics["actor/first_log_ratio"] = self.policy.first_ratio(wam, batch, flow)
        warm = self.updates >= cfg.value_warmup
        if warm:
            metrics |= self.critic.fit(inputs, returns, cfg.epochs, generator)
        else:
            unseen = rollout.state[decisions.episode] % 5 == 4
            metrics |= self.critic.fit(inputs, returns, cfg.value_epochs, generator, unseen)
        metrics["actor/explained_variance"] = explained_variance(value, returns)
        everywhere = dist.all_gather(returns)
        if warm and (everywhere.max() - everywhere.min()).item() > NO_SPREAD:
            metrics |= self.policy.improve(wam, batch, flow, generator)
        self.updates += 1
        return metrics

    def state_dict(self) -> dict:
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.updates = state["updates"]


def explained_variance(value: Tensor, returns: Tensor) -> float:
    """1 - var(returns - value) / var(returns) over the chunks of all ranks; both float32 (M,).

    value: what was expected before the head has seen these chunks.
    """
    error = dist.all_gather(returns - value)
    spread = dist.all_gather(returns).var(unbiased=False)
    return (1 - error.var(unbiased=False) / (spread + 1e-8)).item()
