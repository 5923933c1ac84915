"""Online supervised learning on successful rollouts, after the actor's policy update: two halves, each can be off.

world: video loss on success clips + kl * latent KL against the frozen pretrained model (paper eqs. 7-10);
actor: flow matching on the actions of success clips (co-training; not in the paper), where clips from starts that
       rarely succeed weigh more; on detached features, or (`shared`) training the world model too.
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
    shared: bool = False  # the action loss also trains the world model, as SFT does; not in the paper
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
        if self.steps < 1 or self.batch < 1 or not 0 <= self.demo_share <= 1 or self.kl < 0:
            raise ValueError("online sft: steps >= 1, batch >= 1, 0 <= demo_share <= 1 and kl >= 0 are needed")


class OnlineSFT(nn.Module):
    """The frozen pretrained world model, the KL statistics and both optimisers."""

    def __init__(self, cfg: OnlineSFTConfig, wam: WAM, frozen: WAM):
        super().__init__()
        self.cfg = cfg
        self.frozen = [frozen]  # in a list: it is the base checkpoint, not state of this module
        self.kl = LatentKL(len(wam.spec.taps), wam.world.feature_dim, cfg.kl_ema)
        self.world_optimizer = torch.optim.AdamW(wam.world.parameters(), cfg.world_lr, weight_decay=0.0, fused=True)
        self.actor_optimizer = torch.optim.AdamW(wam.actor.parameters(), cfg.actor_lr, weight_decay=0.0, fused=True)

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
        self.kl.fit(frozen.features(frozen.encode(demos.obs), seeds))

    def update(self, wam: WAM, buffer: Sample, demos: Sample, generator: torch.Generator) -> dict[str, float]:
        """`cfg.steps` gradient steps with a rate that falls to 0; returns averaged metrics."""
        sums: dict[str, float] = defaultdict(float)
        for i in range(self.cfg.steps):
            decay = 1 - i / self.cfg.steps  # what acts next is not the noise of the last step
            n_demo = int(self.cfg.batch * self.cfg.demo_share)
            own = [buffer(self.cfg.batch - n_demo, generator)] if n_demo < self.cfg.batch else []
            clip = Clip.cat([*own, demos(n_demo, generator)])
            for name, value in self._step(wam, clip.to(next(wam.parameters()).device), generator, decay).items():
                sums[name] += value / self.cfg.steps
        return dict(sums)

    def _step(self, wam: WAM, clip: Clip, generator: torch.Generator, decay: float) -> dict[str, float]:
        cfg, metrics, seeds = self.cfg, {}, torch.randint(2**62, (len(clip),), generator=generator)
        wam.eval()
        loss = torch.zeros((), device=clip.proprio.device)
        with torch.set_grad_enabled(cfg.world):
            context = wam.encode(clip.obs)
            features = wam.features(context, seeds)
        if cfg.world:
            world, metrics = self._world_loss(wam, clip, context, features, seeds, generator)
            loss = loss + world
        if cfg.actor:
            action = wam.action_loss(clip, features if cfg.shared else features.detach(), generator)
            action = (action * clip.weight).sum() / clip.weight.sum().clamp(min=1e-6)
            loss, metrics["cotrain/action_loss"] = loss + action, action.item()
        if not loss.isfinite():
            raise FloatingPointError("online sft: the loss is not finite; lower world_lr or actor_lr")
        wam.zero_grad()
        loss.backward()
        if cfg.world:
            _descend(wam.world, self.world_optimizer, cfg.world_lr * decay, cfg.grad_norm)
        if cfg.actor:
            _descend(wam.actor, self.actor_optimizer, cfg.actor_lr * decay, cfg.grad_norm)
        return metrics

    def _world_loss(
        self, wam: WAM, clip: Clip, context, features: Tensor, seeds: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        frozen = self.frozen[0]
        with torch.no_grad():  # identical input, identical noise
            old = frozen.features(frozen.encode(clip.obs), seeds)
        mean, variance = self.kl(features, old)
        self.kl.observe(features)
        video = wam.world.loss(clip, context, generator).mean()
        metrics = {"world/video_loss": video.item(), "world/kl_variance": variance.mean().item()}
        for tap, value in zip(wam.spec.taps, mean.tolist(), strict=True):
            metrics[f"world/kl_mean/{tap}"] = value
        return video + self.cfg.kl * (mean + variance).mean(), metrics


def frozen_copy(wam: WAM) -> WAM:
    return copy.deepcopy(wam).requires_grad_(False).eval()


def _descend(module: nn.Module, optimizer: torch.optim.Optimizer, lr: float, limit: float) -> None:
    nn.utils.clip_grad_norm_(module.parameters(), limit)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
