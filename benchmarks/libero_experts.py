"""How good LIBERO's scripted expert is:
`python benchmarks/libero_experts.py [--episodes 10]` prints a markdown table.

The episodes begin in the official initial states 0, 1, ... With placeholders for missing assets (no
`--assets`) the numbers say something about the expert on stand-ins, and nothing about LIBERO.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.libero_placeholders import assets_for_tests
from wamrl.envs.libero.env import LiberoConfig
from wamrl.envs.libero.expert import TASKS
from wamrl.stats.paired import wilson
from wamrl.types import InitialState


def episode(env, index: int, noise: float) -> tuple[bool, int, int]:
    """Success, control steps and retries from the official initial state `index`."""
    env.reset(InitialState(split="eval", index=index).seed)
    expert, rng, steps = env.expert(), np.random.default_rng(index), 0
    while True:
        disturbance = noise * rng.standard_normal(7) * (1, 1, 1, 1, 1, 1, 0)
        result = env.step(expert.action() + disturbance)
        steps += 1
        if result.terminated or result.truncated:
            return result.success, steps, result.counters[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument(
        "--noise", type=float, default=0.0, help="std added to the six motion dimensions"
    )
    parser.add_argument("--suites", nargs="+", default=list(TASKS))
    parser.add_argument("--tasks", nargs="+", type=int)
    options = parser.parse_args()
    assets = options.assets or assets_for_tests()
    print(
        "| suite | task | success | Wilson 95 % | steps: mean, most | retries | failed states | "
        "instruction |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for suite in options.suites:
        for task in options.tasks or TASKS[suite]:
            env = LiberoConfig(suite=suite, task=task, assets=assets).build()
            done = [episode(env, index, options.noise) for index in range(options.episodes)]
            lengths = [steps for success, steps, _ in done if success] or [0]
            low, high = wilson(len([d for d in done if d[0]]), len(done))
            failed = [i for i, d in enumerate(done) if not d[0]]
            print(
                f"| {suite} | {task} | {len(done) - len(failed)} of {len(done)} | {low:.0%} to "
                f"{high:.0%} | "
                f"{np.mean(lengths):.0f}, {max(lengths)} | {sum(d[2] for d in done)} | "
                f"{failed or ''} | "
                f"{env.spec.instruction} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
