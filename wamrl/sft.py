"""Supervised fine-tuning on demonstrations: the video loss and the action loss, jointly.

    context = encode(obs)
    loss = video_loss(future | context) + action_loss(actions | features(context))
The features that the actor is trained on are those that it will read when it acts (one pass at
feature_sigma). The result is an exponential average of the weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wamrl.models.wam import WAM, ema_update
from wamrl.rl.optim import RankedAdamW, require_finite
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.log import Logger, bar
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

# batch, generator, which of its clips to load
Sample = Callable[[int, torch.Generator, slice], Clip]


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Training on demonstrations: AdamW, a cosine schedule, an average of the weights."""

    steps: Count = 600
    batch: Size = 32  # of all ranks together
    # clips per backward pass, whose gradients add up to the batch's: less memory; 0: all at once
    microbatch: CountOrZero = 0

    lr: LearningRate = 1e-3
    warmup: CountOrZero = 30
    # the world model's weights over the ranks (FSDP2), for those that are too large for one
    shard: bool = False

    ema: Decay = 0.99
    video_weight: NotNegative = 1.0
    grad_norm: Positive = 1.0
    weight_decay: Fraction = 0.01
    log_every: Count = 20  # steps
    save_every: Count = 200  # steps between resumable checkpoints

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "sft")


def learning_rate(step: int, cfg: SFTConfig) -> float:
    """Linear warm-up, then cosine to a tenth."""
    if step < cfg.warmup:
        return cfg.lr * (step + 1) / cfg.warmup
    progress = (step - cfg.warmup) / max(1, cfg.steps - cfg.warmup)
    return cfg.lr * (0.55 + 0.45 * math.cos(math.pi * progress))


def joint_loss(wam: WAM, clip: Clip, seeds: Tensor, batch: int, weight: float) -> Tensor:
    """Video loss and weighted action loss (2,), with one shared context encoding.

    `clip` and seeds, int64 (3, B), may be a part of a batch of `batch` clips whose weights add up
    to `weight`: the sum over the parts is the mean over the batch.
    """
    context = wam.encode(clip.obs)
    of_video, of_features, of_actions = seeds
    video = wam.video_loss(clip, context, of_video)
    action = wam.action_loss(clip, wam.features(context, of_features), of_actions)
    return torch.stack([video.sum() / batch, (action * clip.weight).sum() / max(weight, 1e-6)])


def fine_tune(state: SFT, sample: Sample, run: Path, logger: Logger) -> None:
    """From wherever the state stands to its last step; saves `sft-resume` on the way."""
    cfg = state.cfg
    with bar("fine-tuning on demonstrations", cfg.steps) as advance:
        advance(state.done)
        while state.done < cfg.steps:
            metrics = state.step(sample)
            advance(1)
            if state.done % cfg.log_every == 0 or state.done == cfg.steps:
                logger.log(state.done - cfg.steps, metrics)
            if state.done % cfg.save_every == 0:
                checkpoint.save_named(run, "sft-resume", state.state_dict())


class SFT:
    """The training state: model, average, optimiser, generator; `fine_tune` is the loop."""

    def __init__(self, wam: WAM, cfg: SFTConfig, seed: int):
        cfg.validate()
        self.wam = wam
        self.cfg = cfg
        self.average = copy.deepcopy(wam).requires_grad_(False)
        sharding.shard(*([wam.world, self.average.world] if cfg.shard else []))
        adam = {"weight_decay": cfg.weight_decay, "betas": (0.9, 0.95)}
        adam |= {"grad_norm": cfg.grad_norm, "option": "sft.lr"}
        self.optimizer = RankedAdamW(wam.world, wam.actor, **adam)
        self.generator = torch.Generator().manual_seed(seed)
        self.done = 0

    def step(self, sample: Sample) -> dict[str, float]:
        """One step on a batch of all ranks; returns metrics `sft/...`."""
        self.wam.train()
        lr = learning_rate(self.done, self.cfg)
        losses = self._gradients(sample)
        require_finite(losses, f"sft: step {self.done}", "lower sft.lr")
        norm = self.optimizer.step(lr)
        self.done += 1
        ema_update(self.average, self.wam, min(self.cfg.ema, self.done / (self.done + 10)))
        return {
            "sft/video_loss": losses[0].item(),
            "sft/action_loss": losses[1].item(),
            "sft/grad_norm": norm,
            "sft/lr": lr,
        }

    def _gradients(self, sample: Sample) -> Tensor:
        """Of the whole batch, of which this rank computes its share,
        `microbatch` clips at a time; the losses (2,).
        """
        cfg = self.cfg
        own = dist.rank_slice(cfg.batch)
        clip = sample(cfg.batch, self.generator, own).to(next(self.wam.parameters()).device)
        seeds = torch.randint(2**62, (3, cfg.batch), generator=self.generator)[:, own]
        weight = dist.all_sum(clip.weight.sum()).item()
        losses = clip.weight.new_zeros(2)
        self.wam.zero_grad()
        for rows in sharding.microbatches(len(clip), cfg.microbatch):
            part = joint_loss(self.wam, clip[rows], seeds[:, rows], cfg.batch, weight)
            (cfg.video_weight * part[0] + part[1]).backward()
            losses += part.detach()
        return dist.all_sum(losses)

    def state_dict(self) -> dict:
        return {
            "wam": self.wam.state_dict(),
            "average": self.average.state_dict(),
            "done": self.done,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        sharding.load(self.wam, state["wam"])
        sharding.load(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.done = state["done"]
