"""Closed-loop success on held-out initial states, and the world model's error against copying the last frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl import dist
from wamrl.envs.workers import Pool
from wamrl.models.base import WAM
from wamrl.models.flow import FlowConfig, Sampler
from wamrl.rollout import Rollout, collect, everywhere
from wamrl.types import Clip, Start

CHOOSE_FROM = 50_000_000  # beyond any state that a run reaches


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    episodes: int = 200  # on the initial states 0..episodes-1 of the split `eval`
    choose: int = 100  # training states on which the sampler to deploy is chosen
    imagine_steps: int = 1  # Euler steps of the imagination that is measured and shown

    def validate(self) -> None:
        if min(self.episodes, self.choose) < dist.world() or self.imagine_steps < 1:
            raise ValueError(
                "eval: episodes and choose must be >= 1 (the number of ranks, if there are more), "
                "imagine_steps >= 1"
            )


def evaluate(
    wam: WAM,
    pool: Pool,
    cfg: EvalConfig,
    flow: FlowConfig,
    *,
    seed: int,
    sampler: Sampler,
    on_done=lambda n: None,
) -> Rollout:
    """One episode per initial state; the same states and the same noise for every model.

    This rank's share of the states; `rollout.everywhere` has the outcomes of all.
    """
    starts = [Start(split="eval", index=i) for i in range(cfg.episodes)]
    own = starts[dist.share(cfg.episodes)]
    return collect(wam, pool, own, flow, seed=seed, sampler=sampler, on_done=on_done)


def choose_sampler(
    wam: WAM,
    pool: Pool,
    cfg: EvalConfig,
    flow: FlowConfig,
    *,
    seed: int,
    on_done=lambda n: None,
) -> dict[Sampler, float]:
    """Success of each sampler on `choose` training states that no run trains on, the best one first.

    Never on evaluation states: the best of three there would be an optimist. Of equals, the one
    with less noise comes first.
    """
    starts = [Start(split="train", index=CHOOSE_FROM + i) for i in range(cfg.choose)]
    own = starts[dist.share(cfg.choose)]
    rates: dict[Sampler, float] = {}
    for sampler in ("zero", "ode", "explore"):
        rollout = collect(wam, pool, own, flow, seed=seed, sampler=sampler, on_done=on_done)
        whole, _ = everywhere(rollout)
        rates[sampler] = whole.success.float().mean().item()
    return dict(sorted(rates.items(), key=lambda item: -item[1]))


@torch.no_grad()
def copy_ratio(wam: WAM, clip: Clip, steps: int, batch: int = 64) -> Tensor:
    """Imagination error / copy-last-frame error per offset, (F,): summed pixel MSE of real frames; < 1 beats a copy.

    NaN at an offset that no clip reaches before its episode's end: nothing was measured there.
    Over the clips of all ranks, each of which gives its own, in their order; maybe none.
    """
    wam.eval()
    device, (before, _) = next(wam.parameters()).device, dist.place(len(clip))
    sums = torch.zeros(3, clip.future.shape[1], device=device)  # ours, copied, real frames
    for start in range(0, len(clip), batch):
        part = clip[slice(start, start + batch)].to(device)
        seeds = before + torch.arange(start, start + len(part))
        imagined, future = wam.imagine(part.obs, seeds, steps), part.future.float() / 255
        last, real = part.frames[:, -1:].float() / 255, part.future_mask
        errors = torch.stack([imagined - future, last - future]).square().mean((3, 4, 5, 6))
        sums += torch.cat([(errors * real).sum(1), real.sum(0, keepdim=True)])
    ours, copied, reached = dist.total(sums)
    ratio = ours / copied.clamp(min=1e-12)
    return ratio.where(reached > 0, ratio.new_tensor(math.nan)).cpu()


def rollout_clip(rollout: Rollout, limit: int = 256) -> Clip:
    """Up to `limit` evenly spaced chunks of all ranks' rollouts, to compare what was imagined with what was executed;
    of these, this rank's own."""
    before, count = dist.place(len(rollout.chunks))
    rows = torch.linspace(0, count - 1, min(limit, count)).long() - before
    chunks = rollout.chunks[rows[(rows >= 0) & (rows < len(rollout.chunks))]]
    return Clip(
        frames=chunks.obs.frames, future=chunks.frames, future_mask=chunks.verifiable, proprio=chunks.obs.proprio,
        actions=chunks.plan.actions, action_mask=chunks.mask, weight=torch.ones(len(chunks)), text=chunks.obs.text,
    )  # fmt: skip
