"""The clipped policy update of the actor (paper eq. 12), on features cached in the rollout."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import feature_unit, largest, log_prob_change, rounding_tolerance
from wamrl.models.wam import WAM, ActionChunk
from wamrl.rl.advantage import control_variate, gae, group_baseline, grpo
from wamrl.rl.batch import ActorBatch, Decisions, Outcomes
from wamrl.rl.value import ValueConfig
from wamrl.runtime import dist, sharding
from wamrl.types import Obs

METRICS = ("loss", "kl", "clip_fraction", "grad_norm")  # of a policy minibatch, in this order
VALUE_PATIENCE = 5  # epochs without a gain on unseen initial states


@dataclass(frozen=True, kw_only=True)
class ActorUpdateConfig:
    """PPO (default) or GRPO on the Flow-SDE chain.
    Published settings are in docs/all-of-wamrl.md.
    """

    enabled: bool = True
    algorithm: Literal["ppo", "grpo"] = "ppo"
    epochs: int = 4
    batch: int = 512  # chunks, of all ranks together
    transitions: int = 0  # noisy steps of each chunk that an epoch looks at; 0: all of them
    lr: float = 1e-4
    value_lr: float = 1e-3
    # of Adam; 1e-5, usual in PPO, keeps weights with hardly any gradient where they are
    eps: float = 1e-8

    clip: float = 0.2
    clip_high: float = 0.28  # asymmetric: rare good actions may grow faster (SimpleVLA-RL, DAPO)
    dual_clip: float = 3.0  # bounds the loss of bad actions whose ratio exploded (RLinf)
    gamma: float = 0.99  # per chunk
    lam: float = 0.95
    # stop the epochs when the ratio has moved this far (nats per transition)
    target_kl: float = 0.03
    steer: bool = True  # the rate follows the measured KL: down after a stop, up while far below
    warmup: int = 20  # policy steps over which the rate rises: a fresh Adam overshoots
    group_baseline: bool = True  # PPO: also take off the mean of the other episodes of the state
    min_scale: float = 0.1  # advantages are divided by their std, or by this if it is smaller
    value_warmup: int = 1  # iterations that train only the value head
    # at most, in each of these; ends when unseen initial states gain no more
    value_epochs: int = 40

    grad_norm: float = 1.0
    value: ValueConfig = field(default_factory=ValueConfig)

    def validate(self) -> None:
        if self.eps <= 0 or self.min_scale <= 0 or self.target_kl <= 0:
            raise ValueError(
                f"actor update: eps={self.eps}, min_scale={self.min_scale} and "
                f"target_kl={self.target_kl} must be > 0"
            )
        if self.transitions < 0:
            raise ValueError("actor update: transitions must be >= 1, or 0 for all noisy steps")
        if self.warmup < 0 or self.value_warmup < 0 or self.value_epochs < 1:
            raise ValueError(
                "actor update: warmup, value_warmup >= 0 and value_epochs >= 1 are needed"
            )
        if self.epochs < 1 or self.batch < 1 or not 0 < self.clip < 1 or self.clip_high < self.clip:
            raise ValueError(
                "actor update: epochs >= 1, batch >= 1, 0 < clip < 1 and clip_high >= clip are "
                "needed"
            )
        if not 0 <= self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise ValueError(
                f"actor update: gamma and lam lie in [0, 1], got {self.gamma} and {self.lam}"
            )


def chunk_log_prob(elementwise: Tensor, mask: Tensor) -> Tensor:
    """(M, J, N, A), (M, N) -> (M, J): sum over executed actions and real action dims;
    nothing padded counts.
    """
    return (elementwise * mask[:, None, :, None]).sum((-1, -2))


def policy_loss(log_ratio: Tensor, advantage: Tensor, cfg: ActorUpdateConfig) -> Tensor:
    """Clipped surrogate of every transition, (M, J). log_ratio (M, J), advantage (M,)."""
    ratio = log_ratio.exp()
    a = advantage[:, None]
    clipped = ratio.clamp(1 - cfg.clip, 1 + cfg.clip_high)
    loss = torch.maximum(-a * ratio, -a * clipped)
    return torch.where(a < 0, loss.clamp(max=-cfg.dual_clip * a), loss)


class ActorUpdate(nn.Module):
    """The value head, both optimisers, and how far the rate has been steered.

    buffers: `rate` scales the learning rate, steered by the measured KL;
    `steps` counts policy steps.
    """

    def __init__(self, cfg: ActorUpdateConfig, wam: WAM):
        super().__init__()
        self.cfg = cfg
        spec = wam.spec
        self.value = cfg.value.build(len(spec.taps), wam.world.feature_dim, spec.proprio_dim)
        adam = partial(torch.optim.AdamW, eps=cfg.eps, weight_decay=0.0, fused=True)
        self.optimizer = adam(wam.actor.parameters(), cfg.lr)
        self.value_optimizer = adam(self.value.parameters(), cfg.value_lr)
        self.register_buffer("rate", torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def get_extra_state(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in ("optimizer", "value_optimizer")}

    def set_extra_state(self, state: dict) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

    def prepare(
        self, wam: WAM, chunks: Decisions, clock: Tensor, reward: Tensor, outcomes: Outcomes
    ) -> tuple[ActorBatch, dict[str, float]]:
        """Chunks with their advantages: GAE with the value head, or group-relative per episode.

        chunks: M decisions of this rank; clock: float32 (M,), elapsed share of the horizon; reward:
        float32 (M,). Where GRPO drops a group, its chunks are not in the batch.
        """
        cfg = self.cfg
        metrics = {}
        inputs = self._inputs(wam, chunks.obs, chunks.plan, clock)
        value = self.values(inputs)
        # Running out of time is part of the task and the value head sees the clock:
        # nothing to bootstrap.
        nothing = torch.zeros_like(value)
        returns, _ = gae(reward, nothing, chunks.episode, nothing, cfg.gamma, 1.0)
        keep = torch.ones(len(chunks), dtype=torch.bool)
        own = int(chunks.episode.max()) + 1 if len(chunks) else 0
        state = outcomes.state[outcomes.first : outcomes.first + own]
        if cfg.algorithm == "ppo":
            advantage, _ = gae(reward, value, chunks.episode, nothing, cfg.gamma, cfg.lam)
            if cfg.group_baseline:
                baseline = group_baseline(advantage, chunks.episode, chunks.step == 0, state)
                share = control_variate(advantage, baseline)
                advantage = advantage - share * baseline
                metrics["actor/group_baseline"] = share
        else:
            score = dist.all_gather(torch.zeros(own).index_add_(0, chunks.episode, reward))
            per_episode, kept = grpo(score, outcomes.success, outcomes.state)
            advantage = per_episode[outcomes.first + chunks.episode]
            keep = kept[outcomes.first + chunks.episode]
        batch = ActorBatch(
            obs=chunks.obs,
            plan=chunks.plan,
            mask=chunks.mask,
            inputs=inputs,
            advantage=advantage,
            value=value,
            returns=returns,
            state=state[chunks.episode],
        )
        return batch[keep], metrics

    def step(
        self,
        wam: WAM,
        batch: ActorBatch,
        flow: FlowConfig,
        generator: torch.Generator,
        policy: bool,
    ) -> dict[str, float]:
        """All epochs on one rollout; `policy=False` trains the value head only, to convergence.

        Returns averaged metrics. The policy is left alone, too, where no return differs from
        another: there is nothing to prefer, and dividing by the scale would blow up rounding.
        """
        wam.eval()
        metrics = {"actor/first_log_ratio": self._first_ratio(wam, batch, flow)}
        returns = dist.all_gather(batch.returns)
        if self.cfg.algorithm == "ppo":
            metrics |= self._fit_value(batch, generator, to_convergence=not policy)
            error = dist.all_gather(batch.returns - batch.value)
            explained = 1 - error.var(unbiased=False) / (returns.var(unbiased=False) + 1e-8)
            metrics["actor/explained_variance"] = explained.item()
        spread = (returns.max() - returns.min()).item()
        if policy and spread > 1e-6:
            metrics |= self._improve(wam, batch, flow, generator)
        return metrics

    def _improve(
        self, wam: WAM, batch: ActorBatch, flow: FlowConfig, generator: torch.Generator
    ) -> dict[str, float]:
        """The policy epochs, which end early where the policy has moved by `target_kl`."""
        cfg = self.cfg
        advantage = self._normalised(batch.advantage)
        sums = torch.zeros(len(METRICS), dtype=torch.float64)
        updates = 0
        for _ in range(cfg.epochs):
            kl = 0.0
            parts = self._minibatches(len(batch), generator)
            chosen = self._transitions(batch, generator)
            for own, count in parts:
                rows = batch[own]
                rows = replace(rows, plan=rows.plan.some(chosen[own]))
                found = self._minibatch(wam, rows, advantage[own], flow, count)
                sums += found
                updates += 1
                kl = found[METRICS.index("kl")].item()
                if kl > cfg.target_kl:
                    break
            if kl > cfg.target_kl:
                break
        if cfg.steer:
            self._steer(kl)
        metrics = dict(zip(METRICS, (sums / updates).tolist(), strict=True))
        metrics |= {"stopped_early": float(kl > cfg.target_kl), "rate": self.rate.item()}
        metrics |= {"updates": float(updates)}
        return {f"actor/{name}": value for name, value in metrics.items()}

    def _steer(self, kl: float) -> None:
        """Towards epochs that end near `target_kl`:
        a third slower after a stop, a quarter faster far below it.
        """
        if kl > self.cfg.target_kl:
            self.rate.div_(1.5)
        elif kl < self.cfg.target_kl / 3:
            self.rate.mul_(1.25)
        self.rate.clamp_(1 / 16, 4)

    def _normalised(self, advantage: Tensor) -> Tensor:
        """Over the chunks of all ranks: centred (PPO), and divided by the std, which is floored."""
        everywhere = dist.all_gather(advantage)
        centre = everywhere.mean() if self.cfg.algorithm == "ppo" else 0.0
        scale = everywhere.std(unbiased=False).clamp(min=self.cfg.min_scale)
        return (advantage - centre) / scale

    def _transitions(self, batch: ActorBatch, generator: torch.Generator) -> Tensor:
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

    def _minibatches(self, own: int, generator: torch.Generator) -> list[tuple[Tensor, int]]:
        """One epoch over the chunks of all ranks, in equal minibatches:
        our rows in each, and its size.
        """
        before, count = dist.offset_and_count(own)
        number = max(1, round(count / self.cfg.batch))
        parts = torch.randperm(count, generator=generator).tensor_split(number)
        found = []
        for rows in parts:
            mine = rows[(rows >= before) & (rows < before + own)] - before
            found.append((mine, len(rows)))
        return found

    def _fit_value(
        self, batch: ActorBatch, generator: torch.Generator, *, to_convergence: bool
    ) -> dict[str, float]:
        """Regress the returns: `epochs` epochs; or, to convergence, until chunks that are held out
        (of each fifth initial state) gain no more, and back to where they stood best."""
        device = next(self.value.parameters()).device
        inputs = batch.inputs.to(device)
        returns = batch.returns.to(device)
        train = torch.ones_like(returns)
        if to_convergence:
            train[batch.state.to(device) % 5 == 4] = 0
        best = math.inf
        kept = None
        since = 0  # epochs since the best one
        done = 0
        limit = self.cfg.value_epochs if to_convergence else self.cfg.epochs
        while done < limit and since < VALUE_PATIENCE:
            loss = self._value_epoch(inputs, returns, train, generator)
            done += 1
            if not to_convergence:
                continue
            with torch.no_grad():
                error = F.huber_loss(self.value(inputs), returns, reduction="none")
            unseen = dist.all_sum((error * (1 - train)).sum().double().cpu()).item()
            since += 1
            if unseen < best:
                best = unseen
                kept = copy.deepcopy(self.value.state_dict())
                since = 0
        if kept is not None:
            self.value.load_state_dict(kept)
        return {"actor/value_loss": loss, "actor/value_epochs": float(done)}

    def _value_epoch(
        self, inputs: Tensor, returns: Tensor, train: Tensor, generator: torch.Generator
    ) -> float:
        """One pass over the chunks of all ranks with `train` (M,) = 1; their mean Huber loss."""
        losses = []
        for own, count in self._minibatches(len(returns), generator):
            rows = own.to(inputs.device)
            error = F.huber_loss(self.value(inputs[rows]), returns[rows], reduction="none")
            loss = (error * train[rows]).sum() / count
            losses.append(dist.all_sum(loss.detach().double().cpu()).item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError("value head: the loss is not finite; lower actor.value_lr")
            self._descend(loss, self.value, self.value_optimizer, self.cfg.value_lr)
        return sum(losses) / len(losses)

    @torch.no_grad()
    def _first_ratio(self, wam: WAM, batch: ActorBatch, flow: FlowConfig) -> float:
        """Before any update the ratio must be 1 to rounding, or no later number counts."""
        rows = batch[slice(0, self.cfg.batch)].to(next(wam.parameters()).device)
        new = wam.log_prob(wam.with_features(rows.plan, rows.obs), flow)
        off = log_prob_change(new, rows.plan.chain_log_prob, rows.mask).abs()
        excess = off - rounding_tolerance(rows.plan, rows.mask, flow, feature_unit(wam, rows.plan))
        worst, beyond = (dist.all_max(largest(x)) for x in (off, excess))
        if not beyond <= 0:
            raise RuntimeError(
                f"log ratio {worst:.2e} before the first update (must be 0, to rounding): "
                "the actor or its features changed between rollout and update"
            )
        return worst

    @torch.no_grad()
    def _inputs(self, wam: WAM, obs: Obs, plan: ActionChunk, clock: Tensor) -> Tensor:
        """What the value head reads (M, I) of decisions at clock (M,),
        on the CPU, in minibatches.
        """
        device = next(self.value.parameters()).device
        out = []
        for rows in torch.arange(len(clock)).split(self.cfg.batch):
            part = wam.with_features(plan[rows].to(device), obs[rows].to(device))
            there = clock[rows].to(device)
            out.append(self.value.inputs(part.features, part.proprio, there).cpu())
        return torch.cat(out)  # of no chunks, too: split() gives one empty part

    @torch.no_grad()
    def values(self, inputs: Tensor) -> Tensor:
        """Expected returns (M,), on the CPU."""
        return self.value(inputs.to(next(self.value.parameters()).device)).cpu()

    def _minibatch(
        self, wam: WAM, rows: ActorBatch, advantage: Tensor, flow: FlowConfig, count: int
    ) -> Tensor:
        """One policy step on a minibatch of `count` chunks,
        of which `rows` are this rank's (maybe none).
        """
        device = next(wam.parameters()).device
        plan = wam.with_features(rows.plan.to(device), rows.obs.to(device))
        mask = rows.mask.to(device)
        log_ratio = chunk_log_prob(wam.log_prob(plan, flow) - plan.chain_log_prob, mask)
        transitions = count * log_ratio.shape[1]
        loss = policy_loss(log_ratio, advantage.to(device), self.cfg).sum() / transitions
        ratio = log_ratio.detach().exp()
        outside = (ratio < 1 - self.cfg.clip) | (ratio > 1 + self.cfg.clip_high)
        kl = (ratio - 1 - log_ratio.detach()).sum() / transitions  # Schulman's k3 estimator, >= 0
        found = dist.all_sum(torch.stack([loss.detach(), kl, outside.sum() / transitions]).double())
        if not found[0].isfinite():
            raise FloatingPointError(
                "actor update: the loss is not finite; lower actor.lr or actor.epochs"
            )
        warm = min(1.0, (int(self.steps) + 1) / max(1, self.cfg.warmup))
        norm = self._descend(loss, wam.actor, self.optimizer, self.cfg.lr * warm * self.rate.item())
        self.steps += 1
        return torch.cat([found.cpu(), torch.tensor([norm], dtype=torch.float64)])

    def _descend(
        self, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, lr: float
    ) -> float:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss.backward()
        sharding.sum_gradients(module)
        norm = sharding.clip_gradients(module.parameters(), self.cfg.grad_norm)
        optimizer.step()
        return norm
