"""The clipped policy update of the actor (paper eq. 12), on features cached in the rollout."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl import dist, sharding
from wamrl.models.base import WAM, Plan
from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import feature_unit, largest, log_prob_change, rounding_tolerance
from wamrl.rl.value import ValueConfig, ValueHead
from wamrl.types import Batch, Obs

METRICS = ("value_loss", "loss", "kl", "clip_fraction", "grad_norm")  # of a minibatch, in this order


@dataclass(frozen=True, kw_only=True)
class ActorUpdateConfig:
    """PPO (default) or GRPO on the Flow-SDE chain. Published settings are in docs/all-of-wamrl.md."""

    enabled: bool = True
    algorithm: Literal["ppo", "grpo"] = "ppo"
    epochs: int = 4
    batch: int = 512  # chunks, of all ranks together
    lr: float = 1e-4
    value_lr: float = 1e-3
    eps: float = 1e-8  # of Adam; 1e-5, usual in PPO, keeps weights with hardly any gradient where they are
    clip: float = 0.2
    clip_high: float = 0.28  # asymmetric: rare good actions may grow faster (SimpleVLA-RL, DAPO)
    dual_clip: float = 3.0  # bounds the loss of bad actions whose ratio exploded (RLinf)
    gamma: float = 0.99  # per chunk
    lam: float = 0.95
    target_kl: float = 0.05  # stop the epochs when the ratio has moved this far (nats per transition)
    value_warmup: int = 1  # iterations that train only the value head
    grad_norm: float = 1.0
    value: ValueConfig = field(default_factory=ValueConfig)

    def validate(self) -> None:
        if self.eps <= 0:
            raise ValueError(f"actor update: eps={self.eps} must be > 0")
        if self.epochs < 1 or self.batch < 1 or not 0 < self.clip < 1 or self.clip_high < self.clip:
            raise ValueError("actor update: epochs >= 1, batch >= 1, 0 < clip < 1 and clip_high >= clip are needed")
        if not 0 <= self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise ValueError(f"actor update: gamma and lam lie in [0, 1], got {self.gamma} and {self.lam}")


@dataclass(frozen=True, kw_only=True)
class ActorBatch(Batch):
    """M chunks of a rollout, ready for the update."""

    obs: Obs
    plan: Plan
    mask: Tensor  # bool (M, N) actions that were executed
    clock: Tensor  # float32 (M,)
    advantage: Tensor  # float32 (M,) not yet normalised
    returns: Tensor  # float32 (M,)


def chunk_log_prob(elementwise: Tensor, mask: Tensor) -> Tensor:
    """(M, J, N, A), (M, N) -> (M, J): sum over executed actions and real action dims; nothing padded counts."""
    return (elementwise * mask[:, None, :, None]).sum((-1, -2))


def policy_loss(log_ratio: Tensor, advantage: Tensor, cfg: ActorUpdateConfig) -> Tensor:
    """Clipped surrogate of every transition, (M, J). log_ratio (M, J), advantage (M,)."""
    ratio, a = log_ratio.exp(), advantage[:, None]
    clipped = ratio.clamp(1 - cfg.clip, 1 + cfg.clip_high)
    loss = torch.maximum(-a * ratio, -a * clipped)
    return torch.where(a < 0, loss.clamp(max=-cfg.dual_clip * a), loss)


class ActorUpdate(nn.Module):
    """The value head, both optimisers and the number of updates so far."""

    def __init__(self, cfg: ActorUpdateConfig, wam: WAM):
        super().__init__()
        self.cfg = cfg
        self.value: ValueHead = cfg.value.build(len(wam.spec.taps), wam.world.feature_dim, wam.spec.proprio_dim)
        adam = partial(torch.optim.AdamW, eps=cfg.eps, weight_decay=0.0, fused=True)
        self.optimizer = adam(wam.actor.parameters(), cfg.lr)
        self.value_optimizer = adam(self.value.parameters(), cfg.value_lr)

    def get_extra_state(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in ("optimizer", "value_optimizer")}

    def set_extra_state(self, state: dict) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

    def step(
        self, wam: WAM, batch: ActorBatch, flow: FlowConfig, generator: torch.Generator, policy: bool
    ) -> dict[str, float]:
        """All epochs on one rollout; `policy=False` trains the value head only. Returns averaged metrics."""
        wam.eval()
        first = self._first_ratio(wam, batch, flow)
        everywhere = dist.gathered(batch.advantage)
        scale = everywhere.std(unbiased=False) + 1e-6  # a single chunk has none
        centre = everywhere.mean() if self.cfg.algorithm == "ppo" else 0.0
        advantage, device = (batch.advantage - centre) / scale, next(wam.parameters()).device
        before, count = dist.place(len(batch))  # minibatches are drawn from the chunks of all ranks
        sums, updates, stopped = torch.zeros(len(METRICS), dtype=torch.float64), 0, False
        for _ in range(self.cfg.epochs):
            for rows in torch.randperm(count, generator=generator).split(self.cfg.batch):
                own = rows[(rows >= before) & (rows < before + len(batch))] - before
                part, a = batch[own].to(device), advantage[own].to(device)
                found = self._minibatch(wam, part, a, flow, policy and not stopped, len(rows))
                stopped = stopped or abs(found[METRICS.index("kl")]) > self.cfg.target_kl
                sums, updates = sums + found, updates + 1
        left = dist.gathered(batch.returns - self.values(wam, batch.obs, batch.plan, batch.clock))
        explained = 1 - left.var(unbiased=False) / (dist.gathered(batch.returns).var(unbiased=False) + 1e-8)
        more = {"stopped_early": float(stopped), "explained_variance": explained.item(), "first_log_ratio": first}
        found = dict(zip(METRICS, (sums / updates).tolist(), strict=True))
        return {f"actor/{k}": v for k, v in (found | more).items()}

    @torch.no_grad()
    def _first_ratio(self, wam: WAM, batch: ActorBatch, flow: FlowConfig) -> float:
        """Before any update the ratio must be 1 to rounding, or no later number counts."""
        rows = batch[slice(0, self.cfg.batch)].to(next(wam.parameters()).device)
        new = wam.log_prob(wam.recall(rows.plan, rows.obs), flow)
        off = log_prob_change(new, rows.plan.chain_log_prob, rows.mask).abs()
        excess = off - rounding_tolerance(rows.plan, rows.mask, flow, feature_unit(wam, rows.plan))
        worst, beyond = (dist.most(largest(x)) for x in (off, excess))
        if not beyond <= 0:
            raise RuntimeError(
                f"log ratio {worst:.2e} before the first update (must be 0, to rounding): "
                "the actor or its features changed between rollout and update"
            )
        return worst

    @torch.no_grad()
    def values(self, wam: WAM, obs: Obs, plan: Plan, clock: Tensor) -> Tensor:
        """Expected returns (M,) of decisions at clock (M,), on the CPU, in minibatches."""
        device, out = next(self.value.parameters()).device, []
        for rows in torch.arange(len(clock)).split(self.cfg.batch):
            part = wam.recall(plan[rows].to(device), obs[rows].to(device))
            out.append(self.value(part.features, part.proprio, clock[rows].to(device)).cpu())
        return torch.cat(out)  # of no chunks, too: split() gives one empty part

    def _minibatch(
        self, wam: WAM, rows: ActorBatch, advantage: Tensor, flow: FlowConfig, policy: bool, count: int
    ) -> Tensor:
        """One step on a minibatch of `count` chunks, of which `rows` are this rank's (maybe none); its METRICS."""
        plan = wam.recall(rows.plan, rows.obs)
        value = self.value(plan.features, plan.proprio, rows.clock)
        value_loss = F.huber_loss(value, rows.returns, reduction="sum") / count
        with torch.set_grad_enabled(policy):
            log_ratio = chunk_log_prob(wam.log_prob(plan, flow) - plan.chain_log_prob, rows.mask)
            transitions = count * log_ratio.shape[1]
            loss = policy_loss(log_ratio, advantage, self.cfg).sum() / transitions
        ratio = log_ratio.detach().exp()
        outside = (ratio < 1 - self.cfg.clip) | (ratio > 1 + self.cfg.clip_high)
        kl = (ratio - 1 - log_ratio.detach()).sum() / transitions  # Schulman's k3 estimator, >= 0
        parts = [value_loss.detach(), loss.detach(), kl, outside.sum() / transitions]
        found = dist.total(torch.stack(parts).double())
        if not found[:2].isfinite().all():
            raise FloatingPointError("actor update: the loss is not finite; lower actor.lr or actor.epochs")
        self._descend(value_loss, self.value, self.value_optimizer)
        norm = self._descend(loss, wam.actor, self.optimizer) if policy else 0.0
        return torch.cat([found.cpu(), torch.tensor([norm], dtype=torch.float64)])

    def _descend(self, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad()
        loss.backward()
        sharding.sum_gradients(module)
        norm = sharding.clip_gradients(module.parameters(), self.cfg.grad_norm)
        optimizer.step()
        return norm
