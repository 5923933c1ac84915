"""Online supervised learning on successful rollouts,
after the actor's policy update: two halves, each can be off (`TrainConfig.learn`).

world: video loss on success clips + weight * latent KL against the frozen pretrained model (paper
       eqs. 7-10), where the weight is set by the share of the gradient that the KL shall have;
clone: flow matching on the actions of success clips (co-training; not in the paper), where clips
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
executed: what was done, as it was sampled, before the environment clips it to its bounds: clipped
       actions would slow down a policy at a bound. Only this teaches actions that the noise has
       found. The default, by measurement (LOG.md, 2026-11-27): beside PPO the noise-free chunk
       gave no gain at all.

The weight of the KL (`kl`, `kl_share`). How strong a given lambda is depends on the model, the
video loss and the learning rate; a slack one holds nothing.
So the share of the KL is measured,
    share = |lambda grad KL| / (|grad video| + |lambda grad KL|)
over the world model's weights, at the end of every update, on its last batch, and logged. Before
any drift the KL's gradient is 0, so the first update runs under `kl`; at its end lambda is set,
once, so that the share is `kl_share` (to two digits of lambda), and stays: a constant as in the
paper, which pulls the more the further the features have drifted. It is not set again: where the
KL holds, the drift is inversely proportional to lambda, so that any lambda has much the same
share and a feedback would not settle.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from wamrl.models.wam import WAM
from wamrl.rl.latent_kl import LatentKL
from wamrl.rl.optim import RankedAdamW, require_finite
from wamrl.runtime import dist, sharding
from wamrl.runtime.log import tracked
from wamrl.runtime.ranges import (
    Count,
    CountOrZero,
    Decay,
    Fraction,
    LearningRate,
    NotNegative,
    Positive,
    Size,
    check_ranges,
)
from wamrl.types import Clip

REACH = 1e3  # lambda is calibrated to between kl / REACH and kl * REACH
# batch, generator, which of its clips to load
Sample = Callable[[int, torch.Generator, slice], Clip]


@dataclass(frozen=True, kw_only=True)
class WorldUpdateConfig:
    """Video SFT with the latent KL, and cloning; both in every step, if both learn."""

    clone: Literal["noise_free", "executed"] = "executed"  # what of a successful decision
    # the cloned actions' loss also trains the world model, as SFT does; not in the paper
    shared: bool = False
    steps: Count = 20  # per iteration, both halves in one step
    video_every: Count = 1  # the world model learns in every n-th of these steps, cloning in all
    batch: Size = 32  # of all ranks together
    microbatch: CountOrZero = 0  # clips per backward pass, see SFTConfig
    shard: bool = False  # see SFTConfig
    demo_share: Fraction = 0.25
    world_lr: LearningRate = 1e-4
    actor_lr: LearningRate = 2e-4
    kl: NotNegative = 1.0  # lambda_KL of the first update; 0: no KL
    kl_reduction: Literal["mean", "sum"] = "mean"  # over channels, see `LatentKL.scale`
    # of the gradient; sets lambda after it; None: `kl` stays
    kl_share: Annotated[float, Gt(0), Lt(1)] | None = 0.2
    kl_ema: Decay = 0.99
    capacity: Count = 4096  # clips kept
    grad_norm: Positive = 1.0

    @property
    def demonstrations(self) -> int:
        """Of the batch."""
        return int(self.batch * self.demo_share)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "world")
        if self.shared and self.video_every > 1:
            raise ValueError(
                "world: with shared=True every step trains the world model: leave video_every at 1"
            )


class WorldUpdate:
    """The KL against the frozen pretrained world model, and both optimisers."""

    def __init__(self, cfg: WorldUpdateConfig, learn: Collection[str], wam: WAM, frozen: WAM):
        """learn: which halves, "world" and "clone"; other names are others' business."""
        self.cfg = cfg
        self.learns_world = "world" in learn
        self.clones = "clone" in learn
        self.frozen = frozen
        kl = LatentKL(len(wam.spec.taps), wam.world.feature_dim, cfg.kl_ema)
        self.kl = kl.to(next(wam.parameters()).device)
        self.kl_weight = cfg.kl  # lambda_KL
        self.calibrated = cfg.kl_share is None
        # eps above the rounding of sums: where a gradient vanishes,
        # Adam's step would be lr times rounding.
        adam = {"grad_norm": cfg.grad_norm, "eps": 1e-7}
        self.world_optimizer = RankedAdamW(wam.world, option="world.world_lr", **adam)
        self.actor_optimizer = RankedAdamW(wam.actor, option="world.actor_lr", **adam)

    @property
    def clones_noise_free(self) -> bool:
        """Whether what is cloned has to be asked of the model that acted."""
        return self.clones and self.cfg.clone == "noise_free"

    @torch.no_grad()
    def fit(self, demos: Clip) -> None:
        """Fix the pretrained model's feature variances, from demonstrations."""
        seeds = torch.arange(len(demos))
        self.kl.fit(self.frozen.features(self.frozen.encode(demos.obs), seeds))

    def update(
        self, wam: WAM, buffer: Sample, demos: Sample, generator: torch.Generator
    ) -> dict[str, float]:
        """`cfg.steps` gradient steps with a rate that falls to 0; returns metrics, averaged over
        the steps that have them.

        buffer: own clips; never asked where `demo_share` is 1. generator: in the same state on all
        ranks, and left so.
        """
        cfg = self.cfg
        device = next(wam.parameters()).device
        found: dict[str, list[Tensor]] = defaultdict(list)
        for i in tracked("  world model", range(cfg.steps)):
            video = self.learns_world and i % cfg.video_every == 0
            if not (video or self.clones):
                continue
            batch = mixed_batch(cfg, buffer, demos, generator, device)
            if video:
                found["variance"].append(self.kl.variance_term().mean().cpu())
            decay = 1 - i / cfg.steps  # what acts next is not the noise of the last step
            for name, loss in self._step(wam, batch, decay, video).items():
                found[name].append(loss)
        means = {name: torch.stack(losses).mean(0) for name, losses in found.items()}
        metrics = {}
        if self.clones:
            action = means["action"].item()
            metrics["cotrain/action_loss"] = action
            metrics["cotrain/own_share"] = means["own_action"].item() / max(action, 1e-12)
        if self.learns_world:
            metrics["world/video_loss"] = means["video"].item()
            metrics["world/kl_variance"] = means["variance"].item()
            metrics |= self._weigh(wam, batch)
            for tap, mean in zip(wam.spec.taps, means["kl"].tolist(), strict=True):
                metrics[f"world/kl_mean/{tap}"] = mean
        return metrics

    def _step(self, wam: WAM, batch: MixedBatch, decay: float, video: bool) -> dict[str, Tensor]:
        """One step on the batch; the losses of all ranks, float64, see `gradients`."""
        cfg = self.cfg
        weight = dist.all_sum(batch.clip.weight.sum()).item()
        wam.eval()
        wam.zero_grad()
        losses: dict[str, Tensor] = {}
        moments = 0.0
        for rows in sharding.microbatches(len(batch.clip), cfg.microbatch):
            part, more = self.gradients(wam, batch.rows(rows), weight, video)
            moments = moments + more
            for name, loss in part.items():
                losses[name] = losses.get(name, 0.0) + loss
        losses = {name: dist.all_sum(loss) for name, loss in losses.items()}
        for loss in losses.values():
            require_finite(loss, "world update", "lower world.world_lr or world.actor_lr")
        if video:
            self.kl.observe(dist.all_sum(moments))
            self.world_optimizer.step(cfg.world_lr * decay)
        if self.clones:
            self.actor_optimizer.step(cfg.actor_lr * decay)
        return {name: loss.double().cpu() for name, loss in losses.items()}

    def gradients(
        self, wam: WAM, batch: MixedBatch, weight: float, video: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add the gradients of some clips; their part of the batch's losses, features' moments.

        weight: of the actions of the whole batch. video: whether the world model learns in this
        step. Losses: `video` and `kl` (taps,) per channel, if it does; `action`, and `own_action`,
        the part of it that is not demonstrations.
        """
        cfg = self.cfg
        clip = batch.clip
        of_video, of_features, of_actions = batch.seeds
        losses = {}
        loss = torch.zeros((), device=clip.weight.device)
        with torch.set_grad_enabled(video):
            context = wam.encode(clip.obs)
            features = wam.features(context, of_features)
        if video:
            losses["kl"] = self._kl_mean(clip, features, of_features)
            losses["video"] = wam.video_loss(clip, context, of_video).sum() / cfg.batch
            pull = self.kl_weight * self.kl.scale(cfg.kl_reduction) * losses["kl"].mean()
            loss = losses["video"] + pull
        if self.clones:
            read = features if cfg.shared else features.detach()
            weighted = wam.action_loss(clip, read, of_actions) * clip.weight / max(weight, 1e-6)
            losses["action"] = weighted.sum()
            losses["own_action"] = weighted[batch.own].sum()
            if cfg.shared:
                loss = loss + losses["action"]
            else:  # whatever else the actions ran through
                own = [p for p in wam.actor.parameters() if p.requires_grad]
                losses["action"].backward(inputs=own)
        if loss.requires_grad:
            loss.backward()
        losses = {name: part.detach() for name, part in losses.items()}
        return losses, self.kl.moments(features)

    def _kl_mean(self, clip: Clip, features: Tensor, of_features: Tensor) -> Tensor:
        """These clips' part of the batch's KL per tap, (taps,), per channel."""
        with torch.no_grad():  # identical input, identical noise
            old = self.frozen.features(self.frozen.encode(clip.obs), of_features)
        return self.kl(features, old).sum(0) / self.cfg.batch

    def _weigh(self, wam: WAM, batch: MixedBatch) -> dict[str, float]:
        """Measure the KL's share of the gradient under this update's lambda; set lambda if due."""
        weight = self.kl_weight
        share = 0.0
        if weight:
            video, pull = self._gradient_norms(wam, batch)
            share = weight * pull / max(video + weight * pull, 1e-12)
            if not self.calibrated and pull > 0:  # 0: nothing has drifted yet
                wanted = self.cfg.kl_share / (1 - self.cfg.kl_share) * video / pull
                wanted = min(max(wanted, weight / REACH), weight * REACH)
                self.kl_weight = float(f"{wanted:.2g}")  # the same on any number of ranks
                self.calibrated = True
        return {"world/kl_weight": weight, "world/kl_gradient_share": share}

    def _gradient_norms(self, wam: WAM, batch: MixedBatch) -> tuple[float, float]:
        """L2 norms of the world model's gradients of the video loss and of the KL without weight.

        On the batch of all ranks, by passes like those of a step, so that ranks and sharding agree.
        """
        norms = []
        for loss in (self._video_loss, self._kl_loss):
            wam.zero_grad()
            for rows in sharding.microbatches(len(batch.clip), self.cfg.microbatch):
                loss(wam, batch.rows(rows)).backward()
            sharding.sum_gradients(wam.world)
            norms.append(sharding.gradient_norm(wam.world.parameters()))
        wam.zero_grad()
        return norms[0], norms[1]

    def _video_loss(self, wam: WAM, batch: MixedBatch) -> Tensor:
        context = wam.encode(batch.clip.obs)
        return wam.video_loss(batch.clip, context, batch.seeds[0]).sum() / self.cfg.batch

    def _kl_loss(self, wam: WAM, batch: MixedBatch) -> Tensor:
        of_features = batch.seeds[1]
        features = wam.features(wam.encode(batch.clip.obs), of_features)
        mean = self._kl_mean(batch.clip, features, of_features).mean()
        return self.kl.scale(self.cfg.kl_reduction) * mean

    def state_dict(self) -> dict:
        """For a bitwise resume; the frozen model is the base checkpoint, not a part of this."""
        return {
            "kl": self.kl.state_dict(),
            "kl_weight": self.kl_weight,
            "calibrated": self.calibrated,
            "world_optimizer": self.world_optimizer.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.kl.load_state_dict(state["kl"])
        self.kl_weight = state["kl_weight"]
        self.calibrated = state["calibrated"]
        self.world_optimizer.load_state_dict(state["world_optimizer"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """This rank's share of a batch: of the own clips, which come first, and of demonstrations."""

    clip: Clip  # B clips
    own: Tensor  # bool (B,)
    seeds: Tensor  # int64 (3, B): of the video, of the features, of the actions

    def rows(self, index: Tensor) -> MixedBatch:
        """Some of them, int64 (m,)."""
        return MixedBatch(
            clip=self.clip[index], own=self.own[index], seeds=self.seeds[:, index.cpu()]
        )


def mixed_batch(
    cfg: WorldUpdateConfig,
    buffer: Sample,
    demos: Sample,
    generator: torch.Generator,
    device: torch.device,
) -> MixedBatch:
    """A batch of `cfg.batch` clips of all ranks, drawn alike on each."""
    n_demo = cfg.demonstrations
    n_own = cfg.batch - n_demo
    own_slice = dist.rank_slice(n_own)
    demo_slice = dist.rank_slice(n_demo)
    clips = []
    if n_own:  # else the buffer may be empty
        clips.append(_weighing_one(buffer(n_own, generator, own_slice), n_own))
    clips.append(demos(n_demo, generator, demo_slice))
    clip = Clip.cat(clips).to(device)
    seeds = torch.randint(2**62, (3, cfg.batch), generator=generator)
    of_own, of_demos = seeds.split([n_own, n_demo], 1)
    return MixedBatch(
        clip=clip,
        own=torch.arange(len(clip), device=device) < len(range(n_own)[own_slice]),
        seeds=torch.cat([of_own[:, own_slice], of_demos[:, demo_slice]], 1),
    )


def _weighing_one(clip: Clip, count: int) -> Clip:
    """With weights of mean 1 over the `count` clips of all ranks: success does not mute them."""
    mean = dist.all_sum(clip.weight.sum()).item() / count
    return replace(clip, weight=clip.weight / max(mean, 1e-6))


def frozen_copy(wam: WAM) -> WAM:
    """Without gradients, in evaluation mode."""
    return copy.deepcopy(wam).requires_grad_(False).eval()
