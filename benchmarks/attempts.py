"""What counting attempts costs: `python benchmarks/attempts.py [TASK ...]`.

The expert plays the same episodes twice, step by step side by side, with and without the count;
printed are the medians over all control steps of the two times and of their difference (simulation
only, nothing is drawn).
"""

from __future__ import annotations

import sys
import time
from statistics import median

from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.simulated import SimulatedEnv

EPISODES = 8


class NotWatched:
    def engaged(self) -> bool:
        return False

    def forget(self) -> None:
        pass


def timed(env: SimulatedEnv, action) -> tuple[float, bool]:
    begin = time.perf_counter()
    result = env.step(action)
    return time.perf_counter() - begin, result.terminated or result.truncated


def main(task: str) -> None:
    with_it, without = (MetaWorldConfig(task=task).build() for _ in range(2))
    expert, times = with_it.expert(), ([], [])
    for seed in range(EPISODES):
        with_it.reset(seed)
        without.reset(seed)
        without.scene._contact = NotWatched()
        over = False
        while not over:
            action = expert.action()
            pair = [(with_it, times[0]), (without, times[1])]
            for env, column in pair if len(times[0]) % 2 else pair[::-1]:
                seconds, over = timed(env, action)
                column.append(seconds)
    a, b = (1e6 * median(column) for column in times)
    cost = 1e6 * median(x - y for x, y in zip(*times, strict=True))
    print(
        f"{task:>14}: {a:.0f} us per control step with the count, {b:.0f} without; {cost:.1f} us, "
        f"{cost / b:.1%}"
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or [
        "reach",
        "button-press",
        "drawer-open",
        "pick-place",
        "bin-picking",
    ]:
        main(name)
