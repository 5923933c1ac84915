"""How good is a model: closed-loop success on held-out initial states,
and the world model's error against copying the last frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.report.results import EvalResult, success_line
from wamrl.rollout.collect import collect
from wamrl.rollout.gather import gather_outcomes
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.runtime.log import bar, console
from wamrl.runtime.ranges import Count, CountOrZero, Steps, check_ranges
from wamrl.stats.paired import wilson
from wamrl.types import SAMPLERS, Clip, InitialState, Sampler

CHOOSE_FROM = 50_000_000  # beyond any state that a run reaches


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How often and on how many initial states success is measured."""

    episodes: Count = 200  # on the initial states 0..episodes-1 of the split `eval`
    choose: Count = 100  # training states on which the sampler to deploy is chosen
    # iterations between evaluations during training; 0: only before and after it
    every: CountOrZero = 0
    # episodes of each of these, on the initial states 0..during-1 of the split `eval`
    during: Count = 50
    # Euler steps of the imagination that is measured and shown
    imagine_steps: Steps = 1

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "eval")
        if min(self.episodes, self.choose, self.during) < dist.world():
            raise ValueError(
                f"eval: each of the {dist.world()} ranks needs an episode; give as many or more of "
                "eval.episodes, eval.choose and eval.during"
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

    Outcomes of all ranks; decisions of this rank's share of the states.
    """
    starts = [InitialState(split="eval", index=i) for i in range(cfg.episodes)]
    own = starts[dist.rank_slice(cfg.episodes)]
    rollout = collect(wam, pool, own, flow, seed=seed, sampler=sampler, on_done=on_done)
    return gather_outcomes(rollout)


def outcomes(
    wam: WAM,
    pool: Pool,
    starts: Sequence[InitialState],
    flow: FlowConfig,
    *,
    seed: int,
    samplers: Sequence[Sampler] = SAMPLERS,
    on_done=lambda n: None,
) -> dict[Sampler, Rollout]:
    """The episodes of all ranks under each sampler: same states, same noise.

    The only random streams are the episodes' own, so a run goes on as if nobody had looked.
    """
    own = starts[dist.rank_slice(len(starts))]
    found: dict[Sampler, Rollout] = {}
    for sampler in samplers:
        options = {"seed": seed, "sampler": sampler, "on_done": on_done, "cache_mb": 0.0}
        found[sampler] = gather_outcomes(collect(wam, pool, own, flow, **options))
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
    rates = {sampler: rollout.success.float().mean().item() for sampler, rollout in found.items()}
    return dict(sorted(rates.items(), key=lambda item: -item[1]))


def deploy(
    wam: WAM, pool: Pool, cfg: EvalConfig, flow: FlowConfig, *, seed: int, again: bool = False
) -> dict[Sampler, float]:
    """Settle how `wam` is deployed: as `flow.deploy` says,
    else as saved, else chosen on training states.

    again: choose although the model knows one, since it has learned since.
    Returns the rates by which it was chosen, the best one first; empty where there was no choice.
    """
    if flow.deploy != "auto":
        wam.sampler = flow.deploy
    if wam.sampler is not None and (flow.deploy != "auto" or not again):
        return {}
    episodes = len(SAMPLERS) * cfg.choose
    with bar("choosing the sampler", episodes, ranks=dist.world()) as advance:
        rates = choose_sampler(wam, pool, cfg, flow, seed=seed, on_done=advance)
    wam.sampler = next(iter(rates))
    shown = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
    console.print(
        f"sampler {wam.sampler!r}, by {cfg.choose} training states: {shown}", markup=False
    )
    return rates


def curve_point(
    sampler: Sampler,
    successes: int,
    episodes: int,
    rates: dict[str, float],
    by_task: dict[str, float] | None = None,
) -> dict[str, float]:
    """An evaluation as metrics, a point of the learning curve.

    sampler: the deployed one, whose `successes` of `episodes` these are. rates: of every sampler.
    by_task: success on each task of a suite.
    """
    low, high = wilson(successes, episodes)
    rates_of_tasks = {f"eval/task/{name}": rate for name, rate in (by_task or {}).items()}
    return (
        rates_of_tasks
        | {
            "eval/success": successes / episodes,
            "eval/success_low": low,
            "eval/success_high": high,
            "eval/episodes": float(episodes),
            "eval/sampler": float(SAMPLERS.index(sampler)),
        }
        | {f"eval/success/{name}": rate for name, rate in rates.items()}
    )


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
    rates = {sampler: rollout.success.float().mean().item() for sampler, rollout in found.items()}
    deployed = found[wam.sampler]
    wins = int(deployed.success.sum())
    by_task = {
        name: deployed.success[own].float().mean().item() for name, own in deployed.by_task.items()
    }
    return curve_point(wam.sampler, wins, len(deployed.success), rates, by_task)


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
        past=chunks.obs.past,
    )


def heldout_ratio(wam: WAM, heldout: Clip, steps: int) -> dict[int, float]:
    """`copy_ratio` by frame offset, of clips that every rank has: each measures its share."""
    ratio = copy_ratio(wam, heldout[dist.rank_slice(len(heldout))], steps)
    return dict(zip(wam.spec.frame_offsets, ratio.tolist(), strict=True))


def measure(
    wam: WAM,
    pool: Pool,
    cfg: EvalConfig,
    flow: FlowConfig,
    *,
    seed: int,
    heldout: Clip | None,
    title: str,
) -> tuple[EvalResult, Rollout]:
    """Evaluate under every sampler, and the world model; and the deployed sampler's episodes.

    heldout: clips of demonstrations, or None. title: for the console. `deploy` comes before.
    """
    assert wam.sampler is not None, "call `deploy` first"
    rates = {}
    episodes = len(SAMPLERS) * cfg.episodes
    with bar(f"evaluating {title}", episodes, ranks=dist.world()) as advance:
        for sampler in SAMPLERS:
            options = {"seed": seed, "sampler": sampler, "on_done": advance}
            found = evaluate(wam, pool, cfg, flow, **options)
            rates[sampler] = found.success.float().mean().item()
            if sampler == wam.sampler:
                rollout = found
    nothing = dict.fromkeys(wam.spec.frame_offsets, math.nan)
    executed = copy_ratio(wam, rollout_clip(rollout), cfg.imagine_steps).tolist()
    result = EvalResult(
        task=pool.spec.name,
        goals=pool.spec.stages,
        seed=seed,
        starts=rollout.state,
        success=rollout.success,
        length=rollout.length,
        stages=rollout.stages,
        sampler=wam.sampler,
        rates=rates,
        heldout=nothing if heldout is None else heldout_ratio(wam, heldout, cfg.imagine_steps),
        executed=dict(zip(wam.spec.frame_offsets, executed, strict=True)),
        counters=rollout.counters,
        counter_names=rollout.counter_names,
        by_task=rollout.by_task,
    )
    console.print(f"{title}, {success_line(result)}", markup=False)
    return result, rollout
