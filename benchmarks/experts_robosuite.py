"""How good robosuite's scripted experts are:
`python benchmarks/experts_robosuite.py [SEEDS] [TASK ...]`.

A markdown table over the first SEEDS states of the split `eval`: success with its 95 % Wilson
interval without noise, with noise of std 0.2 added to every action component, and without noise but
with a forced drop: once in the episode, when a thing has been held for a while (`CARRIED`), the
fingers are made to open for 15 control steps.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from wamrl.envs.robosuite.env import RobosuiteConfig
from wamrl.envs.robosuite.tasks import TASKS
from wamrl.envs.simulated import SimulatedEnv
from wamrl.stats.paired import wilson
from wamrl.types import InitialState

DROP = 15  # control steps with open fingers
# steps of holding before the drop
CARRIED = {"lift": 1, "stack": 1, "nut-assembly-square": 12, "nut-assembly": 12}
CARRIED_ELSE = 25


def episode(
    env: SimulatedEnv, seed: int, noise: float, carried: int | None
) -> tuple[bool, int, bool]:
    """Success, length in control steps,
    whether a thing was lost (after `carried` steps of holding; None: never).
    """
    env.reset(seed)
    sim = env.scene.sim
    expert = env.expert()
    rng = np.random.default_rng(seed)
    steps = held = dropping = 0
    lost = False
    while True:
        action = expert.action() + noise * rng.standard_normal(env.spec.action_dim)
        waiting = carried is not None and dropping <= DROP
        holding = waiting and any(map(sim.held, sim.task.things))
        if dropping == DROP:
            lost, dropping = not holding, DROP + 1
        held = held + 1 if holding else 0
        if 0 < dropping < DROP or (not dropping and carried is not None and held >= carried):
            action[-1], dropping = -1.0, dropping + 1
        result, steps = env.step(action), steps + 1
        if result.terminated or result.truncated:
            return result.success, steps, lost


def row(task: str, seeds: int) -> str:
    env, cells, lengths = RobosuiteConfig(task=task).build(), [], []
    for noise, carried in ((0.0, None), (0.2, None), (0.0, CARRIED.get(task, CARRIED_ELSE))):
        runs = [
            episode(env, InitialState(split="eval", index=i).seed, noise, carried)
            for i in range(seeds)
        ]
        if carried is not None:
            runs = [run for run in runs if run[2]]
        wins = sum(run[0] for run in runs)
        low, high = wilson(wins, len(runs)) if runs else (0.0, 1.0)
        cells.append(f"{wins} of {len(runs)} ({low:.0%} to {high:.0%})" if runs else "never lost")
        lengths.append(np.mean([run[1] for run in runs if run[0]] or [np.nan]))
    one, two = (f"{length:.0f}" for length in lengths[:2])
    return f"| {task} | {env.spec.horizon} | {cells[0]} | {one} | {cells[1]} | {two} | {cells[2]} |"


def speed(task: str = "nut-assembly-square", steps: int = 200) -> str:
    """Control steps and 64-pixel frames of the front view per second,
    of one process on this machine now.
    """
    env, rng = RobosuiteConfig(task=task).build(), np.random.default_rng(0)
    env.reset(0)
    env.render()
    begin = time.perf_counter()
    for _ in range(min(steps, env.spec.horizon - 1)):
        env.step(rng.uniform(-1, 1, 7))
    middle = time.perf_counter()
    for _ in range(steps):
        env.render()
    end = time.perf_counter()
    for seed in range(20):
        env.reset(seed)
    rest = (time.perf_counter() - end) / 20
    stepping, drawing = min(steps, env.spec.horizon - 1) / (middle - begin), steps / (end - middle)
    return (
        f"{task}: {stepping:.0f} control steps/s, {drawing:.0f} frames/s, {1000 * rest:.0f} ms a "
        "reset"
    )


if __name__ == "__main__":
    print(
        "| task | horizon | no noise | steps | noise 0.2 | steps | forced drop "
        "|\n|---|---|---|---|---|---|---|"
    )
    for name in sys.argv[2:] or TASKS:
        print(row(name, int(sys.argv[1]) if len(sys.argv) > 1 else 50), flush=True)
    print(f"\n{speed()}")
