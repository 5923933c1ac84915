"""Closed-loop success on held-out initial states,
and the world model's error against copying the last frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl.models.flow import SAMPLERS, FlowConfig, Sampler
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.report import wilson
from wamrl.rollout import Rollout, collect, everywhere
from wamrl.runtime import dist
from wamrl.types import Clip, InitialState

CHOOSE_FROM = 50_000_000  # beyond any state that a run reaches


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    episodes: int = 200  # on the initial states 0..episodes-1 of the split `eval`
    choose: int = 100  # training states on which the sampler to deploy is chosen
    every: int = 0  # iterations between evaluations during training; 0: only before and after it
    # episodes of each of these, on the initial states 0..during-1 of the split `eval`
    during: int = 50
    imagine_steps: int = 1  # Euler steps of the imagination that is measured and shown

    def validate(self) -> None:
        if self.every < 0 or self.during < dist.world():
            raise ValueError(
                f"eval: every={self.every} must be >= 0 (0: never during training) and "
                f"during={self.during} >= 1 "
                "(the number of ranks, if there are more)"
            )
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
    starts = [InitialState(split="eval", index=i) for i in range(cfg.episodes)]
    own = starts[dist.rank_slice(cfg.episodes)]
    return collect(wam, pool, own, flow, seed=seed, sampler=sampler, on_done=on_done)


def outcomes(
    wam: WAM,
    pool: Pool,
    starts: Sequence[InitialState],
    flow: FlowConfig,
    *,
    seed: int,
    samplers: Sequence[Sampler] = SAMPLERS,
    on_done=lambda n: None,
) -> dict[Sampler, Tensor]:
    """Success of the episodes of all ranks, bool (E,), under each sampler: same states, same noise.

    The only random streams are the episodes' own, so a run goes on as if nobody had looked.
    """
    own = starts[dist.rank_slice(len(starts))]
    found: dict[Sampler, Tensor] = {}
    for sampler in samplers:
        options = {"seed": seed, "sampler": sampler, "on_done": on_done, "cache_mb": 0.0}
        whole, _ = everywhere(collect(wam, pool, own, flow, **options))
        found[sampler] = whole.success
    return found


def choose_sampler(
    wam: WAM,
    pool: Pool,
    cfg: EvalConfig,
    flow: FlowConfig,
    *,
    seed: int,
    samplers: Sequence[Sampler] = ("zero", "ode", "explore"),
    on_done=lambda n: None,
) -> dict[Sampler, float]:
    """Success of each sampler on `choose` training states
    that no run trains on, the best one first.

    Never on evaluation states: the best of three there would be an optimist. Of equals, the one
    that is named first in `samplers` comes first: by default the one with less noise.
    """
    starts = [InitialState(split="train", index=CHOOSE_FROM + i) for i in range(cfg.choose)]
    options = {"seed": seed, "samplers": samplers, "on_done": on_done}
    found = outcomes(wam, pool, starts, flow, **options)
    rates = {sampler: success.float().mean().item() for sampler, success in found.items()}
    return dict(sorted(rates.items(), key=lambda item: -item[1]))


def curve_point(
    sampler: Sampler, successes: int, episodes: int, rates: dict[str, float]
) -> dict[str, float]:
    """An evaluation as metrics, a point of the learning curve.

    sampler: the deployed one, whose `successes` of `episodes` these are. rates: of every sampler.
    """
    low, high = wilson(successes, episodes)
    return {
        "eval/success": successes / episodes,
        "eval/success_low": low,
        "eval/success_high": high,
        "eval/episodes": float(episodes),
        "eval/sampler": float(SAMPLERS.index(sampler)),
    } | {f"eval/success/{name}": rate for name, rate in rates.items()}


def glance(
    wam: WAM,
    pool: Pool,
    cfg: EvalConfig,
    flow: FlowConfig,
    *,
    seed: int,
    on_done=lambda n: None,
) -> dict[str, float]:
    """`curve_point` of a model in training:
    all samplers on the first `during` evaluation states.
    """
    assert wam.sampler is not None, "settle the deployed sampler first"
    starts = [InitialState(split="eval", index=i) for i in range(cfg.during)]
    found = outcomes(wam, pool, starts, flow, seed=seed, on_done=on_done)
    rates = {sampler: success.float().mean().item() for sampler, success in found.items()}
    deployed = found[wam.sampler]
    return curve_point(wam.sampler, int(deployed.sum()), len(deployed), rates)


@torch.no_grad()
def copy_ratio(wam: WAM, clip: Clip, steps: int, batch: int = 64) -> Tensor:
    """Imagination error / copy-last-frame error per offset, (F,):
    summed pixel MSE of real frames; < 1 beats a copy.

    NaN at an offset that no clip reaches before its episode's end: nothing was measured there.
    Over the clips of all ranks, each of which gives its own, in their order; maybe none.
    """
    wam.eval()
    device = next(wam.parameters()).device
    before, _ = dist.offset_and_count(len(clip))
    sums = torch.zeros(3, clip.future.shape[1], device=device)  # ours, copied, real frames
    for start in range(0, len(clip), batch):
        part = clip[slice(start, start + batch)].to(device)
        seeds = before + torch.arange(start, start + len(part))
        imagined = wam.imagine(part.obs, seeds, steps)
        future = part.future.float() / 255
        last = part.frames[:, -1:].float() / 255
        real = part.future_mask
        errors = torch.stack([imagined - future, last - future]).square().mean((3, 4, 5, 6))
        sums += torch.cat([(errors * real).sum(1), real.sum(0, keepdim=True)])
    ours, copied, reached = dist.all_sum(sums)
    ratio = ours / copied.clamp(min=1e-12)
    return ratio.where(reached > 0, ratio.new_tensor(math.nan)).cpu()


def rollout_clip(rollout: Rollout, limit: int = 256) -> Clip:
    """Up to `limit` evenly spaced chunks of all ranks' rollouts, to compare what was imagined with
    what was executed; of these, this rank's own."""
    before, count = dist.offset_and_count(len(rollout.decisions))
    rows = torch.linspace(0, count - 1, min(limit, count)).long() - before
    chunks = rollout.decisions[rows[(rows >= 0) & (rows < len(rollout.decisions))]]
    return Clip(
        frames=chunks.obs.frames,
        future=chunks.frames,
        future_mask=chunks.verifiable,
        proprio=chunks.obs.proprio,
        actions=chunks.plan.actions,
        action_mask=chunks.mask,
        weight=torch.ones(len(chunks)),
        text=chunks.obs.text,
    )
