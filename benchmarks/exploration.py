"""On how many initial states does exploring show both outcomes?
`python benchmarks/exploration.py RECIPE BASE [N]`.

A policy gradient can only prefer actions on states where some tries succeed and others fail.
Prints, for growing noise, independent or shared by the actions of a chunk (`flow.correlation`), the
success of 4 tries per state, the control steps of an episode, and the share of undecided states
with its Wilson 95 % interval, as a markdown table. The states belong to the split `train`, but no
run gets to them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from wamrl.config import Config
from wamrl.recipes.find import find_recipe
from wamrl.reward_comparison import FIRST_START
from wamrl.rollout.collect import collect
from wamrl.rollout.metrics import mixed_outcome
from wamrl.runs.folder import open_model
from wamrl.stats.paired import wilson
from wamrl.types import InitialState

TRIES = 4
# noise, noisy steps, correlation
NOISES = (
    (0.3, "one", 0.0),
    (0.6, "one", 0.0),
    (1.0, "one", 0.0),
    (0.3, "all", 0.0),
    (0.5, "all", 0.0),
    (0.8, "all", 0.0),
    (1.2, "all", 0.0),
    (0.25, "all", 0.8),
    (0.35, "all", 0.8),
    (0.5, "all", 0.8),
)


def main(recipe: str, base: Path, states: int) -> None:
    torch.set_num_threads(1)
    cfg = find_recipe(recipe, Config)()
    wam = open_model(cfg, base)
    starts = [
        InitialState(split="train", index=FIRST_START + i)
        for i in range(states)
        for _ in range(TRIES)
    ]
    print(
        f"| noise | noisy steps | correlation | success of {len(starts)} | control steps "
        f"| undecided of {states} states | Wilson 95 % |"
    )
    print("|---|---|---|---|---|---|---|")
    with cfg.build_pool() as pool:
        for noise, noisy, correlation in NOISES:
            flow = replace(cfg.flow, noise=noise, noisy=noisy, correlation=correlation)
            rollout = collect(wam, pool, starts, flow, seed=0, sampler="explore")
            both = mixed_outcome(rollout)
            low, high = wilson(int(both.sum()), len(both))
            rate = f"{rollout.success.float().mean():.1%}"
            length = f"{rollout.length.float().mean():.1f}"
            print(
                f"| {noise} | {noisy} | {correlation} | {rate} | {length} "
                f"| {int(both.sum())} | {low:.0%} to {high:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 50)
