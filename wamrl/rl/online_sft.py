"""Online supervised learning on successful rollouts, after the actor's policy update: two halves, each can be off.

world: video loss on success clips + kl * latent KL against the frozen pretrained model (paper eqs. 7-10);
actor: flow matching on the actions of success clips (co-training; not in the paper), on detached features, where clips
       from starts that rarely succeed weigh more.
A share of each batch comes from the demonstrations, so that neither half forgets them.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wamrl.models.base import WAM
from wamrl.rl.latent_kl import LatentKL
from wamrl.types import Clip

Sample = Callable[[int, torch.Generator], Clip]


@dataclass(frozen=True, kw_only=True)
class OnlineSFTConfig:
    world: bool = True  # video SFT with latent KL
    actor: bool = True  # co-training; False in the paper's recipe
    steps: int = 20  # per iteration, both halves in one step
    batch: int = 32
    demo_share: float = 0.25
    world_lr: float = 1e-4
    actor_lr: float = 2e-4
    kl: float = 0.1  # lambda_KL
    kl_ema: float = 0.99
    capacity: int = 4096  # clips kept
    grad_norm: float = 1.0

    def validate(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 <= self.demo_share < 1 or self.kl < 0:
            raise ValueError("online sft: steps >= 1, batch >= 1, 0 <= demo_share < 1 and kl >= 0 are needed")


class OnlineSFT(nn.Module):
    """The frozen pretrained world model, the KL statistics and both optimisers."""

    def __init__(self, cfg: OnlineSFTConfig, wam: WAM, frozen: WAM):
        super().__init__()
        self.cfg = cfg
        self.frozen = [frozen]  # in a list: it is the base checkpoint, not state of this module
        self.kl = LatentKL(len(wam.spec.taps), wam.world.feature_dim, cfg.kl_ema)
        self.world_optimizer = torch.optim.AdamW(wam.world.parameters(), cfg.world_lr, weight_decay=0.0)
        self.actor_optimizer = torch.optim.AdamW(wam.actor.parameters(), cfg.actor_lr, weight_decay=0.0)

    def get_extra_state(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in ("world_optimizer", "actor_optimizer")}

    def set_extra_state(self, state: dict) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)

    @torch.no_grad()
    def fit(self, demos: Clip) -> None:
        """Fix the pretrained model's feature variances, from demonstrations."""
        frozen = self.frozen[0]
        seeds = torch.arange(len(demos))
        self.kl.fit(frozen.features(frozen.world.encode(demos.obs), seeds))

    def update(self, wam: WAM, buffer: Sample, demos: Sample, generator: torch.Generator) -> dict[str, float]:
        """`cfg.steps` gradient steps; returns averaged metrics."""
        sums: dict[str, float] = defaultdict(float)
        for _ in range(self.cfg.steps):
            n_demo = int(self.cfg.batch * self.cfg.demo_share)
            clip = Clip.cat([buffer(self.cfg.batch - n_demo, generator), demos(max(1, n_demo), generator)])
            for name, value in self._step(wam, clip.to(next(wam.parameters()).device), generator).items():
                sums[name] += value / self.cfg.steps
        return dict(sums)

    def _step(self, wam: WAM, clip: Clip, generator: torch.Generator) -> dict[str, float]:
        metrics, seeds = {}, torch.randint(2**62, (len(clip),), generator=generator)
        wam.eval()
        with torch.set_grad_enabled(self.cfg.world):
            context = wam.world.encode(clip.obs)
            features = wam.features(context, seeds)
        if self.cfg.world:
            loss, metrics = self._world_loss(wam, clip, context, features, seeds, generator)
            _apply(loss, wam.world, self.world_optimizer, self.cfg.grad_norm)
        if self.cfg.actor:
            loss = wam.action_loss(clip, features.detach(), generator)
            loss = (loss * clip.weight).sum() / clip.weight.sum().clamp(min=1e-6)
            _apply(loss, wam.actor, self.actor_optimizer, self.cfg.grad_norm)
            metrics["cotrain/action_loss"] = loss.item()
        return metrics

    def _world_loss(
        self, wam: WAM, clip: Clip, context, features: Tensor, seeds: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        frozen = self.frozen[0]
        with torch.no_grad():  # identical input, identical noise
            old = frozen.features(frozen.world.encode(clip.obs), seeds)
        mean, variance = self.kl(features, old)
        self.kl.observe(features)
        video = wam.world.loss(clip, context, generator).mean()
        metrics = {"world/video_loss": video.item(), "world/kl_variance": variance.mean().item()}
        for tap, value in zip(wam.spec.taps, mean.tolist(), strict=True):
            metrics[f"world/kl_mean/{tap}"] = value
        return video + self.cfg.kl * (mean + variance).mean(), metrics


def frozen_copy(wam: WAM) -> WAM:
    return copy.deepcopy(wam).requires_grad_(False).eval()


def _apply(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer, limit: float) -> None:
    if not loss.isfinite():
        raise FloatingPointError("online sft: the loss is not finite; lower world_lr or actor_lr")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), limit)
    optimizer.step()
