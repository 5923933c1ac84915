"""How close does a rollout come to the slower of its two halves, the simulators alone and the model alone?

python benchmarks/pipeline.py [RECIPE] [--episodes 64] [--workers 1] [--threads 1] [--rounds 5]

All sides run the same episodes in turns: the whole rollout in one lane and in two, the simulators alone (the decisions
are those of the first rollout, at no cost) and the model alone (the outcomes are). Equal outputs are asserted.
On few cores give the model and the workers one each: where they share cores, nothing can be gained.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import torch

from wamrl.cli import find_recipe
from wamrl.envs.workers import Pool
from wamrl.experiment import build_wam
from wamrl.models.base import WAM
from wamrl.rollout import Rollout, collect
from wamrl.types import Start


class Taped:
    """`inner`, with every answer of its method `name` noted."""

    def __init__(self, inner, name: str):
        self.inner, self.tape = inner, deque()
        plain = getattr(inner, name)

        def note(*args):
            self.tape.append(plain(*args))
            return self.tape[-1]

        setattr(self, name, note)

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def tapes(wam: WAM, pool: Pool, run) -> tuple[Callable, Callable, Rollout]:
    """Makers of a model that knows its decisions and of a pool that knows its outcomes; the rollout they are from."""
    model, envs = Taped(wam, "act"), Taped(pool, "receive")
    rollout = run(model, envs)

    def free_model() -> SimpleNamespace:
        tape = deque(model.tape)
        return SimpleNamespace(eval=wam.eval, parameters=wam.parameters, spec=wam.spec, act=lambda *_: tape.popleft())

    def free_envs() -> SimpleNamespace:
        tape = deque(envs.tape)
        return SimpleNamespace(
            config=pool.config, spec=pool.spec, busy_s=0.0, reset=lambda starts: None, send=lambda *_: None,
            receive=tape.popleft,
        )  # fmt: skip

    return free_model, free_envs, rollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="quickstart")
    for name, default in (("episodes", 64), ("workers", 1), ("threads", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg = find_recipe(args.recipe)()
    starts, wam = [Start(split="train", index=i) for i in range(args.episodes)], build_wam(cfg)

    def run(model, envs) -> Rollout:
        return collect(model, envs, starts, cfg.flow, seed=0, explore=True)

    pools = replace(cfg.pool(), n_workers=args.workers)
    with replace(pools, lanes=1).build() as one, replace(pools, lanes=2).build() as two:
        free_model, free_envs, whole = tapes(wam, two, run)
        sides = {
            "simulators alone": lambda: run(free_model(), two), "model alone": lambda: run(wam, free_envs()),
            "both, one lane": lambda: run(wam, one), "both, two lanes": lambda: run(wam, two),
        }  # fmt: skip
        seconds = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                begin = time.perf_counter()
                rollout = side()
                seconds[name].append(time.perf_counter() - begin)
                assert torch.equal(rollout.length, whole.length) and torch.equal(rollout.success, whole.success), name
    best = {name: min(times) for name, times in seconds.items()}
    slower = max(best["simulators alone"], best["model alone"])
    for name, times in seconds.items():
        share = f"{slower / min(times):.0%} of the slower half alone" if name.startswith("both") else ""
        print(f"{name:<17} {min(times):6.2f} s  (median {median(times):.2f})  {share}")


if __name__ == "__main__":
    main()
