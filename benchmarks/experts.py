"""How good the scripted experts are:
`python benchmarks/experts.py [NOISE] [SEEDS]` prints a markdown table.
"""

from __future__ import annotations

import sys

import numpy as np

from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.metaworld.tasks import TASKS
from wamrl.stats.paired import wilson
from wamrl.types import InitialState


def main(noise: float, seeds: int) -> None:
    print(
        f"| task | success of {seeds} | Wilson 95 % | mean steps | horizon |\n|---|---|---|---|---|"
    )
    for task in TASKS:
        env = MetaWorldConfig(task=task).build()
        lengths, wins = [], 0
        for index in range(seeds):
            start = InitialState(split="train", index=index)
            env.reset(start.seed)
            expert, rng, steps = env.expert(), np.random.default_rng(start.seed), 0
            while True:
                result = env.step(
                    expert.action() + noise * rng.standard_normal(env.spec.action_dim)
                )
                steps += 1
                if result.terminated or result.truncated:
                    break
            wins += result.success
            lengths += [steps] if result.success else []
        low, high = wilson(wins, seeds)
        print(
            (
                f"| {task} | {wins} | {low:.0%} to {high:.0%} | {np.mean(lengths):.0f} | "
                f"{env.spec.horizon} |"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 0.3,
        int(sys.argv[2]) if len(sys.argv) > 2 else 20,
    )
