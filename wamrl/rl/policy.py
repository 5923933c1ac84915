"""The clipped policy update of the actor (paper eq. 12), on features cached in the rollout.

What PPO and GRPO share: they differ in the advantages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import drift, largest, log_prob_change, read_coarsely
from wamrl.models.wam import WAM
from wamrl.rl.batch import PolicyBatch, minibatches
from wamrl.rl.learner import LearnerConfig
from wamrl.rl.optim import RankedAdamW, require_finite
from wamrl.runtime import dist
from wamrl.runtime.log import tracked
from wamrl.runtime.ranges import Count, CountOrZero, LearningRate, Positive, Steps, check_ranges

SLOWEST = 1 / 16  # of the learning rate, as far as it is steered
FASTEST = 4.0


@dataclass(frozen=True, kw_only=True)
class ClippedPolicyConfig(LearnerConfig):
    """The clipped surrogate on the Flow-SDE chain.
    Published settings are in docs/all-of-wamrl.md.
    """

    epochs: Steps = 4
    batch: Count = 512  # chunks, of all ranks together
    transitions: CountOrZero = 0  # noisy steps of each chunk that an epoch looks at; 0: all of them
    lr: LearningRate = 1e-4
    # a joint model's trunk learns by the policy gradient too, not only by the world model's losses
    shared: bool = False
    # of Adam; 1e-5, usual in PPO, keeps weights with hardly any gradient where they are
    eps: Annotated[float, Gt(0), Le(1)] = 1e-8

    # what ratios are taken against: the log-probabilities of the rollout's batches, or the same
    # computed again, before the first step, in the update's own; "auto": again only where the two
    # drift apart, in a world model in bfloat16 whose features were not kept
    old_log_prob: Literal["auto", "rollout", "recomputed"] = "auto"

    clip: Annotated[float, Gt(0), Lt(1)] = 0.2
    # asymmetric: rare good actions may grow faster (SimpleVLA-RL, DAPO)
    clip_high: Annotated[float, Gt(0), Le(100)] = 0.28
    # bounds the loss of bad actions whose ratio exploded (RLinf)
    dual_clip: Annotated[float, Gt(1), Le(1e9)] = 3.0
    # stop the epochs when the ratio has moved this far (nats per transition)
    target_kl: Positive = 0.03
    steer: bool = True  # the rate follows the measured KL: down after a stop, up while far below
    warmup: CountOrZero = 20  # policy steps over which the rate rises: a fresh Adam overshoots
    min_scale: Positive = 0.1  # advantages are divided by their std, or by this if it is smaller
    grad_norm: Positive = 1.0

    def small(self) -> ClippedPolicyConfig:
        return replace(self, epochs=1)

    def recomputes(self, wam: WAM, has_features: bool) -> bool:
        """Whether old log-probabilities are computed again, of plans with or without features."""
        if self.old_log_prob == "auto":
            return read_coarsely(wam, has_features)
        return self.old_log_prob == "recomputed"

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "learner")
        if self.clip_high < self.clip:
            raise ValueError(
                f"learner: clip_high={self.clip_high} must not lie below clip={self.clip}"
            )


def chunk_log_prob(elementwise: Tensor, mask: Tensor) -> Tensor:
    """(M, J, N, A), (M, N) -> (M, J): sum over executed actions and real action dims;
    nothing padded counts.
    """
    return (elementwise * mask[:, None, :, None]).sum((-1, -2))


def policy_loss(log_ratio: Tensor, advantage: Tensor, cfg: ClippedPolicyConfig) -> Tensor:
    """Clipped surrogate of every transition, (M, J). log_ratio (M, J), advantage (M,)."""
    ratio = log_ratio.exp()
    a = advantage[:, None]
    clipped = ratio.clamp(1 - cfg.clip, 1 + cfg.clip_high)
    loss = torch.maximum(-a * ratio, -a * clipped)
    return torch.where(a < 0, loss.clamp(max=-cfg.dual_clip * a), loss)


class ClippedPolicy:
    """The actor's optimiser, and how far its rate has been steered."""

    def __init__(self, cfg: ClippedPolicyConfig, wam: WAM):
        self.cfg = cfg
        adam = {"eps": cfg.eps, "grad_norm": cfg.grad_norm, "option": "learner.lr"}
        self.optimizer = RankedAdamW(*wam.policy(cfg.shared), **adam)
        self.rate = 1.0  # scales the learning rate
        self.steps = 0  # of the optimiser, so far

    @torch.no_grad()
    def first_ratio(self, wam: WAM, batch: PolicyBatch, flow: FlowConfig) -> float:
        """Before any update the ratio must be 1 to rounding, or no later number counts.

        Returns the largest |log ratio| to the rollout of a transition on any rank, nats;
        RuntimeError if rounding does not explain it. Where old log-probabilities are recomputed
        because of bfloat16, that is its rounding.
        """
        wam.eval()
        rows = batch[slice(0, self.cfg.batch)].to(next(wam.parameters()).device)
        plan = wam.with_features(rows.plan, rows.obs)
        coarse = self.cfg.recomputes(wam, rows.plan.has_features)
        off, excess = drift(wam, rows.plan, plan, rows.mask, flow, coarse=coarse)
        worst = dist.all_max(largest(off))
        if not dist.all_max(largest(excess)) <= 0:
            raise RuntimeError(
                f"log ratio {worst:.2e} before the first update (must be 0, to rounding): "
                "the actor or its features changed between rollout and update"
            )
        return worst

    def improve(
        self, wam: WAM, batch: PolicyBatch, flow: FlowConfig, generator: torch.Generator
    ) -> dict[str, float]:
        """The epochs, which end early where the policy has moved by `target_kl`; mean metrics."""
        cfg = self.cfg
        wam.eval()
        sums = {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "grad_norm": 0.0}
        updates = 0
        kl = 0.0
        moved = {}
        for epoch in range(1, cfg.epochs + 1):
            parts = minibatches(len(batch), cfg.batch, generator)
            chosen = self._transitions(batch, generator)
            if epoch == 1 and cfg.recomputes(wam, batch.plan.has_features):
                batch, moved["drift"] = self._recomputed(wam, batch, flow, parts, chosen)
            for own, count in tracked(f"  actor, epoch {epoch}", parts):
                rows = batch[own]
                rows = replace(rows, plan=rows.plan.some(chosen[own]))
                found = self._gradients(wam, rows, flow, count)
                found["grad_norm"] = self.optimizer.step(self._rate())
                self.steps += 1
                updates += 1
                for name, value in found.items():
                    sums[name] += value
                kl = found["kl"]
                if kl > cfg.target_kl:
                    break
            if kl > cfg.target_kl:
                break
        self._steer(kl)
        metrics = {name: value / updates for name, value in sums.items()}
        metrics["stopped_early"] = float(kl > cfg.target_kl)
        metrics["rate"] = self.rate
        metrics["updates"] = float(updates)
        return {f"actor/{name}": value for name, value in (metrics | moved).items()}

    def _recomputed(
        self,
        wam: WAM,
        batch: PolicyBatch,
        flow: FlowConfig,
        parts: list[tuple[Tensor, int]],
        chosen: Tensor,
    ) -> tuple[PolicyBatch, float]:
        """The batch with the log-probabilities of `wam` as it is, and how far they are from those
        of the rollout: mean of ratio - 1 - log ratio over the transitions of all ranks.

        parts, chosen: the minibatches of the first epoch and the transitions, int64 (M, C), that it
        looks at. Other transitions are computed after these, C at a time: every batch has the shape
        of the update's, and the ratios of its first step are 1 to the last bit where kernels are
        deterministic.
        """
        device = next(wam.parameters()).device
        old = batch.plan.chain_log_prob.clone()
        every = old.shape[1]
        some = chosen.shape[1]
        unseen = torch.ones(len(batch), every, dtype=torch.bool).scatter(1, chosen, False)
        others = unseen.nonzero()[:, 1].view(len(batch), every - some)
        groups = [chosen, *(others.split(some, 1) if some < every else [])]
        for own, _ in tracked("  actor, old log-probabilities", parts):
            rows = batch[own].to(device)
            plan = wam.with_features(rows.plan, rows.obs)
            for group in groups:
                # with a graph, as the update has one: some kernels differ without
                found = wam.log_prob(plan.some(group[own]), flow).detach()
                old[own[:, None], group[own]] = found.to(old.device)
        moved = log_prob_change(old, batch.plan.chain_log_prob, batch.mask)
        apart = (moved.exp() - 1 - moved).sum()
        total, count = dist.all_sum(torch.stack([apart, apart.new_tensor(moved.numel())])).tolist()
        plan = replace(batch.plan, chain_log_prob=old)
        return replace(batch, plan=plan), total / count

    def _gradients(
        self, wam: WAM, rows: PolicyBatch, flow: FlowConfig, count: int
    ) -> dict[str, float]:
        """The gradients of a minibatch of `count` chunks, of which `rows` are this rank's (maybe
        none); its loss, KL and share of clipped transitions over all ranks.
        """
        device = next(wam.parameters()).device
        plan = wam.with_features(rows.plan.to(device), rows.obs.to(device))
        log_ratio = chunk_log_prob(
            wam.log_prob(plan, flow) - plan.chain_log_prob, rows.mask.to(device)
        )
        transitions = count * log_ratio.shape[1]
        loss = policy_loss(log_ratio, rows.advantage.to(device), self.cfg).sum() / transitions
        ratio = log_ratio.detach().exp()
        outside = (ratio < 1 - self.cfg.clip) | (ratio > 1 + self.cfg.clip_high)
        kl = (ratio - 1 - log_ratio.detach()).sum() / transitions  # Schulman's k3 estimator, >= 0
        found = dist.all_sum(torch.stack([loss.detach(), kl, outside.sum() / transitions]).double())
        require_finite(found[0], "actor update", "lower learner.lr or learner.epochs")
        self.optimizer.backward(loss)
        return dict(zip(("loss", "kl", "clip_fraction"), found.tolist(), strict=True))

    def _rate(self) -> float:
        """The learning rate of the next step: warmed up, and as steered."""
        warm = min(1.0, (self.steps + 1) / max(1, self.cfg.warmup))
        return self.cfg.lr * warm * self.rate

    def _steer(self, kl: float) -> None:
        """Towards epochs that end near `target_kl`:
        a third slower after a stop, a quarter faster far below it.
        """
        if not self.cfg.steer:
            return
        if kl > self.cfg.target_kl:
            self.rate /= 1.5
        elif kl < self.cfg.target_kl / 3:
            self.rate *= 1.25
        self.rate = min(max(self.rate, SLOWEST), FASTEST)

    def _transitions(self, batch: PolicyBatch, generator: torch.Generator) -> Tensor:
        """Which noisy steps of our chunks an epoch looks at, int64 (M, C), ascending.

        `cfg.transitions` of them cost so much less than all, and their gradient is the same in
        expectation, but for a factor that Adam does not see. Drawn for the chunks of all ranks,
        so that every rank's generator goes on alike.
        """
        size = batch.plan.chain_step.shape[1]
        before, count = dist.offset_and_count(len(batch))
        if not 0 < self.cfg.transitions < size:
            return torch.arange(size).expand(len(batch), size)
        order = torch.rand(count, size, generator=generator).argsort(1)
        chosen = order[:, : self.cfg.transitions].sort(1).values
        return chosen[before : before + len(batch)]

    def state_dict(self) -> dict:
        """For a bitwise resume."""
        return {"optimizer": self.optimizer.state_dict(), "rate": self.rate, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate = state["rate"]
        self.steps = state["steps"]
