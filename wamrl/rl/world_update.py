"""Online supervised learning on successful rollouts,
after the actor's policy update: two halves, each can be off.

world: video loss on success clips + weight * latent KL against the frozen pretrained model (paper
       eqs. 7-10), where the weight is set by the share of the gradient that the KL shall have;
actor: flow matching on the actions of success clips (co-training; not in the paper), where clips
       from starts that rarely succeed weigh more; on detached features, or (`shared`) training the
       world model too.
       Own clips weigh 1 on average in every batch, as the demonstrations do.
A share of each batch comes from the demonstrations, so that neither half forgets them.

What is cloned of a successful decision (`clone`):
noise_free: the ODE from the same initial draw, on the features that acted. The executed chunk is
       that plus exploration noise: flow matching on it teaches the ODE the noise, the next rollout
       adds its own on top, and the policy widens. The noise-free chunks have the policy's own
       distribution: where every draw succeeds there is nothing to learn, elsewhere the draws that
       succeed gain. Not the ODE from zero, which is one chunk per observation: it shrinks the
       policy to a point, and it is another chunk than the one that succeeded.
executed: what was done. Only this teaches actions that the noise has found. The default, by
       measurement (LOG.md, 2026-11-27): beside PPO the noise-free chunk gave no gain at all.

The weight of the KL (`kl`, `kl_share`). How strong a given lambda is depends on the model, the
video loss and the learning rate; a slack one is no leash at all.
So the share of the KL is measured,
    share = |lambda grad KL| / (|grad video| + |lambda grad KL|)
over the world model's weights, at the end of every update, on its last batch, and logged. Before
any drift the KL's gradient is 0, so the first update runs under `kl`; at its end lambda is set,
once, so that the share is `kl_share` (to two digits of lambda), and stays: a constant as in the
paper, which pulls the more the further the features have drifted. It is not set again: where the
leash holds, the drift is inversely proportional to lambda, so that any lambda has much the same
share and a feedback would not settle.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from wamrl.models.wam import WAM
from wamrl.rl.latent_kl import LatentKL
from wamrl.runtime import dist, sharding
from wamrl.types import Clip

REACH = 1e3  # lambda is calibrated to between kl / REACH and kl * REACH
# batch, generator, which of its clips to load
Sample = Callable[[int, torch.Generator, slice], Clip]


@dataclass(frozen=True, kw_only=True)
class WorldUpdateConfig:
    world: bool = True  # video SFT with latent KL
    actor: bool = False  # co-training; not in the paper
    clone: Literal["noise_free", "executed"] = "executed"  # of a successful decision
    # the action loss also trains the world model, as SFT does; not in the paper
    shared: bool = False
    steps: int = 20  # per iteration, both halves in one step
    batch: int = 32  # of all ranks together
    microbatch: int = 0  # clips per backward pass, see SFTConfig
    shard: bool = False  # see SFTConfig
    demo_share: float = 0.25
    world_lr: float = 1e-4
    actor_lr: float = 2e-4
    kl: float = 1.0  # lambda_KL of the first update; 0: no KL
    kl_reduction: Literal["mean", "sum"] = "mean"  # over channels, see `LatentKL.scale`
    kl_share: float | None = 0.2  # of the gradient; sets lambda after it; None: `kl` stays
    kl_ema: float = 0.99
    capacity: int = 4096  # clips kept
    grad_norm: float = 1.0

    @property
    def clones_noise_free(self) -> bool:
        return self.actor and self.clone == "noise_free"

    def validate(self) -> None:
        if (
            self.steps < 1
            or self.batch < 1
            or self.microbatch < 0
            or not 0 <= self.demo_share <= 1
            or self.kl < 0
        ):
            raise ValueError(
                "online sft: steps, batch >= 1, micro, kl >= 0 and 0 <= demo_share <= 1 are needed"
            )
        if self.kl_share is not None and not 0 < self.kl_share < 1:
            raise ValueError(
                f"online sft: kl_share={self.kl_share} must lie between 0 and 1; "
                "None keeps kl, kl=0 turns the KL off"
            )


class WorldUpdate(nn.Module):
    """The frozen pretrained world model, the KL statistics and both optimisers."""

    def __init__(self, cfg: WorldUpdateConfig, wam: WAM, frozen: WAM):
        super().__init__()
        self.cfg = cfg
        self.frozen = [frozen]  # in a list: it is the base checkpoint, not state of this module
        self.kl = LatentKL(len(wam.spec.taps), wam.world.feature_dim, cfg.kl_ema)
        self.register_buffer("kl_weight", torch.tensor(cfg.kl, dtype=torch.float64))  # lambda_KL
        self.register_buffer("calibrated", torch.tensor(cfg.kl_share is None))
        # eps above the rounding of sums: where a gradient vanishes,
        # Adam's step would be lr times rounding.
        adam = {"weight_decay": 0.0, "eps": 1e-7, "fused": True}
        self.world_optimizer = torch.optim.AdamW(wam.world.parameters(), cfg.world_lr, **adam)
        self.actor_optimizer = torch.optim.AdamW(wam.actor.parameters(), cfg.actor_lr, **adam)

    def get_extra_state(self) -> dict:
        return {
            name: getattr(self, name).state_dict()
            for name in ("world_optimizer", "actor_optimizer")
        }

    def set_extra_state(self, state: dict) -> None:
        for name, part in state.items():
            sharding.load_optimizer(getattr(self, name), part)

    @torch.no_grad()
    def fit(self, demos: Clip) -> None:
        """Fix the pretrained model's feature variances, from demonstrations."""
        frozen = self.frozen[0]
        seeds = torch.arange(len(demos))
        self.kl.fit(frozen.features(frozen.encode(demos.obs), seeds))

    def update(
        self, wam: WAM, buffer: Sample, demos: Sample, generator: torch.Generator
    ) -> dict[str, float]:
        """`cfg.steps` gradient steps with a rate that falls to 0; returns averaged metrics."""
        cfg = self.cfg
        variance = 0.0
        sums = torch.zeros(3 + len(wam.spec.taps), dtype=torch.float64)
        n_demo = int(cfg.batch * cfg.demo_share)
        n_own = cfg.batch - n_demo
        for i in range(cfg.steps):
            clip = _mixed(buffer, demos, n_own, n_demo, generator)
            decay = 1 - i / cfg.steps  # what acts next is not the noise of the last step
            variance += self.kl.variance_term().mean().item() / cfg.steps
            clip = clip.to(next(wam.parameters()).device)
            seeds = _own_seeds(cfg, generator)
            sums += self._step(wam, clip, seeds, decay) / cfg.steps
        action, own_action, video, *taps = sums.tolist()
        metrics = {}
        if cfg.actor:
            metrics["cotrain/action_loss"] = action
            metrics["cotrain/own_share"] = own_action / max(action, 1e-12)
        if cfg.world:
            metrics |= {"world/video_loss": video, "world/kl_variance": variance}
            metrics |= self._weigh(wam, clip, seeds)
            metrics |= {
                f"world/kl_mean/{tap}": value
                for tap, value in zip(wam.spec.taps, taps, strict=True)
            }
        return metrics

    def _weigh(self, wam: WAM, clip: Clip, seeds: Tensor) -> dict[str, float]:
        """Measure the KL's share of the gradient under this update's lambda; set lambda if due."""
        weight = self.kl_weight.item()
        share = 0.0
        if weight:
            video, pull = self._gradient_norms(wam, clip, seeds)
            share = weight * pull / max(video + weight * pull, 1e-12)
            if not self.calibrated and pull > 0:  # 0: nothing has drifted yet
                wanted = self.cfg.kl_share / (1 - self.cfg.kl_share) * video / pull
                wanted = min(max(wanted, weight / REACH), weight * REACH)
                self.kl_weight.fill_(float(f"{wanted:.2g}"))  # the same on any number of ranks
                self.calibrated.fill_(True)
        return {"world/kl_weight": weight, "world/kl_gradient_share": share}

    def _gradient_norms(self, wam: WAM, clip: Clip, seeds: Tensor) -> tuple[float, float]:
        """L2 norms of the world model's gradients of the video
        loss and of the KL without its weight.

        On the batch of all ranks, by passes like those of a step, so that ranks and sharding agree.
        """
        norms = []
        for loss in (self._video_loss, self._kl_loss):
            wam.zero_grad()
            for rows in sharding.microbatches(len(clip), self.cfg.microbatch):
                loss(wam, clip[rows], seeds[:, rows]).backward()
            sharding.sum_gradients(wam.world)
            norms.append(sharding.gradient_norm(wam.world.parameters()))
        wam.zero_grad()
        return norms[0], norms[1]

    def _video_loss(self, wam: WAM, clip: Clip, seeds: Tensor) -> Tensor:
        return wam.video_loss(clip, wam.encode(clip.obs), seeds[0]).sum() / self.cfg.batch

    def _kl_loss(self, wam: WAM, clip: Clip, seeds: Tensor) -> Tensor:
        features = wam.features(wam.encode(clip.obs), seeds[1])
        return self._scale * self._kl_mean(clip, features, seeds[1]).mean()

    def _kl_mean(self, clip: Clip, features: Tensor, of_features: Tensor) -> Tensor:
        """These clips' part of the batch's KL per tap, (taps,), per channel."""
        frozen = self.frozen[0]
        with torch.no_grad():  # identical input, identical noise
            old = frozen.features(frozen.encode(clip.obs), of_features)
        return self.kl(features, old).sum(0) / self.cfg.batch

    @property
    def _scale(self) -> float:
        return self.kl.scale(self.cfg.kl_reduction)

    def _step(self, wam: WAM, clip: Clip, seeds: Tensor, decay: float) -> Tensor:
        """One step on the batch of which `clip` is this rank's share;
        its losses, see `_gradients`.
        """
        cfg = self.cfg
        own = _own_rows(cfg).to(clip.weight.device)
        weight = dist.all_sum(clip.weight.sum()).item()
        wam.eval()
        wam.zero_grad()
        losses = torch.zeros(3 + len(wam.spec.taps), device=clip.weight.device)
        moments = 0.0
        for rows in sharding.microbatches(len(clip), cfg.microbatch):
            part, more = self._gradients(wam, clip[rows], own[rows], seeds[:, rows], weight)
            losses = losses + part
            moments = moments + more
        losses = dist.all_sum(losses)
        if not losses.isfinite().all():
            raise FloatingPointError(
                "online sft: the loss is not finite; lower world_lr or actor_lr"
            )
        if cfg.world:
            self.kl.observe(dist.all_sum(moments))
        for module, on, optimizer, lr in (
            (wam.world, cfg.world, self.world_optimizer, cfg.world_lr),
            (wam.actor, cfg.actor, self.actor_optimizer, cfg.actor_lr),
        ):
            if on:
                sharding.sum_gradients(module)
                _descend(module, optimizer, lr * decay, cfg.grad_norm)
        return losses.double().cpu()

    def _gradients(
        self, wam: WAM, clip: Clip, own: Tensor, seeds: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of some clips; their part of the batch's losses, features' moments.

        own: bool (B,), which are not demonstrations. Losses: of the actions, the own clips' part of
        it, of the video, and the KL per tap.
        """
        cfg = self.cfg
        of_video, of_features, of_actions = seeds
        zero = torch.zeros((), device=clip.weight.device)
        with torch.set_grad_enabled(cfg.world):
            context = wam.encode(clip.obs)
            features = wam.features(context, of_features)
        video = zero
        action = zero
        own_action = zero
        mean = zero.expand(len(wam.spec.taps))
        if cfg.world:
            mean = self._kl_mean(clip, features, of_features)
            video = wam.video_loss(clip, context, of_video).sum() / cfg.batch
        if cfg.actor:
            action = wam.action_loss(
                clip, features if cfg.shared else features.detach(), of_actions
            )
            weighted = action * clip.weight / max(weight, 1e-6)
            action = weighted.sum()
            own_action = weighted[own].sum()
        (video + self.kl_weight.item() * self._scale * mean.mean() + action).backward()
        losses = torch.cat([torch.stack([action, own_action, video]), mean]).detach()
        return losses, self.kl.moments(features)


def _own_seeds(cfg: WorldUpdateConfig, generator: torch.Generator) -> Tensor:
    """int64 (3, B): video, features, actions of this rank's clips,
    which are its share of both kinds.
    """
    n_demo = int(cfg.batch * cfg.demo_share)
    own, demo = torch.randint(2**62, (3, cfg.batch), generator=generator).split(
        [cfg.batch - n_demo, n_demo], 1
    )
    return torch.cat(
        [own[:, dist.rank_slice(cfg.batch - n_demo)], demo[:, dist.rank_slice(n_demo)]], 1
    )


def _own_rows(cfg: WorldUpdateConfig) -> Tensor:
    """bool (B,): which of this rank's clips are not demonstrations; they come first."""
    n_demo = int(cfg.batch * cfg.demo_share)
    counts = [len(range(n)[dist.rank_slice(n)]) for n in (cfg.batch - n_demo, n_demo)]
    return torch.arange(sum(counts)) < counts[0]


def _mixed(
    buffer: Sample, demos: Sample, n_own: int, n_demo: int, generator: torch.Generator
) -> Clip:
    """This rank's share of n_own own clips and n_demo demonstrations, in this order."""
    own = []
    if n_own:  # else the buffer may be empty
        own = [_weighing_one(buffer(n_own, generator, dist.rank_slice(n_own)), n_own)]
    return Clip.cat([*own, demos(n_demo, generator, dist.rank_slice(n_demo))])


def _weighing_one(clip: Clip, count: int) -> Clip:
    """With weights of mean 1 over the `count` clips of all ranks: success does not mute them."""
    mean = dist.all_sum(clip.weight.sum()).item() / count
    return replace(clip, weight=clip.weight / max(mean, 1e-6))


def frozen_copy(wam: WAM) -> WAM:
    return copy.deepcopy(wam).requires_grad_(False).eval()


def _descend(module: nn.Module, optimizer: torch.optim.Optimizer, lr: float, limit: float) -> None:
    sharding.clip_gradients(module.parameters(), limit)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
