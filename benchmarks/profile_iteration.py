"""Where the time of one online iteration goes:
the phases of `wamrl/train.py`, and torch's operators within.

    python -m benchmarks.profile_iteration [--recipe quickstart] [--groups 0]
                                           [--iterations 2] [--ranks 0]

Without `--base` the model has learned nothing: no episode succeeds, all last to the horizon, and
the world model is trained on demonstrations only, which costs the same. A first iteration warms up
and is not counted. The operators come from a further iteration under torch.profiler, which slows
it: read their shares, not their seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.side_by_side import finish, parser, single
from wamrl.config import Config
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import collect
from wamrl.data.recording import InMemory
from wamrl.online.state import TrainingState
from wamrl.recipes.find import find_recipe
from wamrl.runs.folder import open_model
from wamrl.runs.phases import fresh_model
from wamrl.train import iterate

PHASES = ("rollout", "score", "actor", "online")


def arguments() -> argparse.Namespace:
    p = parser()
    p.add_argument("--recipe", default="quickstart", help="as in `wamrl list`, or module:function")
    p.add_argument("--base", type=Path, help="a run folder or checkpoint whose model to use")
    p.add_argument(
        "--groups", type=int, default=0, help="initial states per iteration; 0: as the recipe says"
    )
    p.add_argument("--iterations", type=int, default=2, help="counted iterations")
    p.add_argument(
        "--ranks",
        type=int,
        default=0,
        help="processes that share the work; 0: as `wamrl train` chooses",
    )
    p.add_argument("--threads", type=int, default=0, help="of torch; 0: as the recipe says")
    p.add_argument(
        "--operators",
        type=int,
        default=15,
        help="of torch to list; 0: none, and no further iteration",
    )
    o = p.parse_args()
    if o.quick:  # seconds
        o.recipe, o.groups, o.iterations = "point", 2, 1
    return o


def demonstrations(cfg: Config) -> ClipDataset:
    episodes, m = InMemory(collect(replace(cfg.demos("demo"), episodes=4))), cfg.model
    return ClipDataset(episodes, m.history_offsets, m.frame_offsets, m.chunk, only_success=True)


def measure(
    cfg: Config, base: Path | None, iterations: int, operators: bool
) -> tuple[list[dict[str, float]], list[tuple]]:
    """Metrics of every counted iteration,
    and (operator, seconds in itself, calls) of one more, dearest first.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wam = (open_model(cfg, base) if base else fresh_model(cfg)).to(device)
    with cfg.build_pool() as pool:
        state = TrainingState(cfg, wam, demonstrations(cfg), pool.spec.horizon)
        iterate(state, pool)
        counted = [iterate(state, pool)[0] for _ in range(iterations)]
        if not operators:
            return counted, []
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
        with profile(activities=kinds) as found:
            iterate(state, pool)
    spent = [
        (e.key, (e.self_device_time_total or e.self_cpu_time_total) / 1e6, e.count)
        for e in found.key_averages()
    ]
    return counted, sorted(spent, key=lambda e: -e[1])


@contextlib.contextmanager
def ranks(n: int, cfg: Config) -> Iterator[int]:
    """Our place among them; n as in --ranks."""
    if n == 1:  # an older commit knows nothing else (before_after.py)
        yield 0
        return
    from wamrl.runs.folder import usual_ranks
    from wamrl.runtime import dist, launch

    command = [sys.executable, "-P", "-m", "benchmarks.profile_iteration", *sys.argv[1:]]
    with launch.local_ranks(n or usual_ranks(cfg), command), dist.ranks():
        yield dist.rank()


def prepared(o: argparse.Namespace) -> Config:
    """The recipe,
    with an online phase that does all its work whether or not an episode succeeds.
    """
    cfg = find_recipe(o.recipe)()
    online = cfg.train.world if o.base else replace(cfg.train.world, demo_share=1.0)
    learner = replace(cfg.train.learner, value_warmup=0, target_kl=1e9)  # every update is done
    if o.quick:
        online = replace(online, steps=2)
    groups = o.groups or cfg.train.groups
    train = replace(cfg.train, groups=groups, env_steps=0, world=online, learner=learner)
    return replace(cfg, train=train, threads=o.threads or cfg.threads)


def rows_of(
    o: argparse.Namespace, cfg: Config, counted: list[dict[str, float]], operators: list[tuple]
) -> list[dict]:
    steps = median(m["rollout/steps"] for m in counted)
    whole = [sum(m[f"time/{phase}"] for phase in PHASES) for m in counted]
    note = (
        f"{o.recipe}, {cfg.train.groups * cfg.train.initial_states.group} episodes, "
        f"{steps:.0f} control steps"
    )
    rows = [single("whole iteration", whole, "s", note)]
    for phase in PHASES:
        seconds = [m[f"time/{phase}"] for m in counted]
        rows.append(
            single(f"phase {phase}", seconds, "s", f"{median(seconds) / median(whole):.0%}")
        )
    total = sum(e[1] for e in operators)
    for name, seconds, calls in operators[: o.operators]:
        rows.append(single(name, [100 * seconds / total], "% of operator time", f"{calls} calls"))
    return rows


def main() -> None:
    o = arguments()
    cfg = prepared(o)
    with ranks(o.ranks, cfg) as rank:
        torch.set_num_threads(cfg.threads or torch.get_num_threads())
        torch.manual_seed(0)
        counted, operators = measure(cfg, o.base, o.iterations, o.operators > 0)
        if rank == 0:
            metrics = {k: v for k, v in counted[-1].items() if not k.startswith("time/")}
            rows = rows_of(o, cfg, counted, operators)
            finish("profile_iteration", rows, o, operators=operators[:50], metrics=metrics)


if __name__ == "__main__":
    main()
