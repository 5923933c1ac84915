"""How close does a rollout come to the slower of its two halves,
the simulators alone and the model alone?

All sides run the same episodes in turns: the whole rollout in one split and in two, the simulators
alone (the decisions are those of the first rollout, at no cost) and the model alone (the outcomes
are). Equal outputs are asserted. One simulator process and one torch thread; and two and one, where
they share the cores of a machine that has two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch

from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.cli import find_recipe
from wamrl.models.base import WAM
from wamrl.pool.pool import Pool
from wamrl.rollout import Rollout, collect
from wamrl.runs.phases import build_wam
from wamrl.types import InitialState


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
    """Makers of a model that knows its decisions and of a pool that knows its outcomes;
    the rollout they are from.
    """
    model, envs = Taped(wam, "act"), Taped(pool, "receive")
    rollout = run(model, envs)

    def free_model() -> SimpleNamespace:
        tape = deque(model.tape)
        return SimpleNamespace(
            eval=wam.eval, parameters=wam.parameters, spec=wam.spec, act=lambda *_: tape.popleft()
        )

    def free_envs() -> SimpleNamespace:
        tape = deque(envs.tape)
        return SimpleNamespace(
            config=pool.config,
            spec=pool.spec,
            frame_offsets=pool.frame_offsets,
            busy_s=0.0,
            reset=lambda: None,
            send=lambda *_: None,
            receive=tape.popleft,
        )

    return free_model, free_envs, rollout


def measure(workers: int, episodes: int, rounds: int) -> list[dict]:
    torch.set_num_threads(1)
    cfg = find_recipe("quickstart")()
    starts, wam = [InitialState(split="train", index=i) for i in range(episodes)], build_wam(cfg)

    def run(model, envs) -> Rollout:
        return collect(model, envs, starts, cfg.flow, seed=0, sampler="explore")

    def split(num_splits: int) -> Pool:
        pool = replace(cfg.pool, n_workers=workers, num_splits=num_splits)
        return replace(cfg, pool=pool).build_pool()

    with split(1) as one, split(2) as two:
        free_model, free_envs, whole = tapes(wam, two, run)
        found = {}
        works = {
            "simulators alone": lambda: run(free_model(), two),
            "model alone": lambda: run(wam, free_envs()),
            "one split": lambda: run(wam, one),
            "two splits": lambda: run(wam, two),
        }
        sides = {
            name: lambda name=name, work=work: found.update({name: work()})
            for name, work in works.items()
        }
        seconds = interleave(sides, rounds)
        for name, rollout in found.items():
            assert torch.equal(rollout.length, whole.length) and torch.equal(
                rollout.success, whole.success
            ), name
    slower = max(("simulators alone", "model alone"), key=lambda name: min(seconds[name]))
    note = ", ".join(
        f"{name} {min(seconds[name]):.2f} s" for name in ("simulators alone", "model alone")
    )
    where = f"{workers} simulator process{'es' * (workers > 1)}, 1 thread"
    return [
        row(f"{splits}, {where}", seconds[splits], seconds[slower], scale=1, unit="s", note=note)
        for splits in ("one split", "two splits")
    ]


if __name__ == "__main__":
    o = options()
    episodes, rounds = (8, 1) if o.quick else (64, 5)
    finish("pipeline", [r for workers in (1, 2) for r in measure(workers, episodes, rounds)], o)
