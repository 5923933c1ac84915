"""Does every LIBERO task load, reset, run five chunks and render?
`python benchmarks/libero_suites.py` prints a table.

    python benchmarks/libero_suites.py [--assets FOLDER] [--suites object 10 ...]

Without `--assets` it takes the official files that lie beside the repository, if any, and generated
placeholders for the rest: then the table says that the adapter works, and nothing about LIBERO.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.libero_placeholders import assets_for_tests
from wamrl.envs.libero import rendering as libero_render
from wamrl.envs.libero.assets import SUITES, init_states
from wamrl.envs.libero.env import LiberoConfig
from wamrl.types import InitialState

CHUNKS, CHUNK = 5, 8
HEAD = (
    "| suite | task | build s | reset s | control steps/s | frame ms | goals | horizon | "
    "instruction |"
)


def run(config: LiberoConfig) -> str:
    """One table row; raises what is wrong."""
    begin = time.perf_counter()
    env = config.build()
    built = time.perf_counter()
    states = init_states(env.scene.task.init_states)
    assert states.shape == (50, 1 + env.scene.sim.model.nq + env.scene.sim.model.nv), states.shape
    env.reset(InitialState(split="train", index=0).seed)
    start = time.perf_counter()
    env.reset(InitialState(split="eval", index=0).seed)
    reset = time.perf_counter()
    rng = np.random.default_rng(0)
    for chunk in rng.uniform(-0.5, 0.5, (CHUNKS, CHUNK, 7)):
        for action in chunk:
            result = env.step(action)
            assert not result.terminated and np.isfinite(env.proprio()).all()
    stepped = time.perf_counter()
    env.render()
    first = time.perf_counter()
    frames = env.render()
    drawn = time.perf_counter()
    assert frames.shape == (2, 256, 256, 3) and min(frames[0].std(), frames[1].std()) > 5, (
        "an empty picture"
    )
    speed, frame = CHUNKS * CHUNK / (stepped - reset), (drawn - first) / 2 * 1000
    return (
        f"| {config.suite} | {config.task} | {built - begin:.1f} | {reset - start:.2f} | "
        f"{speed:.0f} | "
        f"{frame:.0f} | {env.spec.stages} | {env.spec.horizon} | {env.spec.instruction} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    options = parser.parse_args()
    assets = options.assets or assets_for_tests()
    print(f"{HEAD}\n|---|---|---|---|---|---|---|---|---|")
    good = bad = 0
    for suite in options.suites:
        for task in range(SUITES[suite]):
            try:
                print(run(LiberoConfig(suite=suite, task=task, assets=assets)), flush=True)
                good += 1
            except Exception as error:
                # the table goes on: one broken task must not hide the others
                print(f"| {suite} | {task} | failed: {type(error).__name__}: {error} |", flush=True)
                bad += 1
            libero_render._renderers.clear()  # one task's textures at a time
            gc.collect()
    kind = f"assets of {options.assets}" if options.assets else "placeholders for missing assets"
    print(f"\n{good} tasks ran, {bad} failed; {kind}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
