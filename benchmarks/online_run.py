"""How long does an online run take here? `wamrl sft` once, then `wamrl train` as a user starts it.

    python -m benchmarks.online_run --work DIR [--name cpu] [--ranks 16] [--iterations 12]

The recipe is the study's `press-once` with 256 episodes an iteration; without `--base` it learns
from its two demonstrations first, and a second call with the same DIR starts from that base again.
What is timed is the whole command, start, two evaluations and report included, and (episodes per
second) the iterations alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import cores
from benchmarks.side_by_side import finish, parser, single
from wamrl.config import Config
from wamrl.envs.point import PointConfig
from wamrl.recipes import point as point_recipe
from wamrl.recipes import studies as study

PHASES = ("rollout", "score", "actor", "online")


def press_once() -> Config:
    """The study's short task without its budget of control steps and its one simulator process."""
    cfg = study.press_once()
    starts = replace(cfg.train.initial_states, group=4)
    train = replace(cfg.train, env_steps=0, groups=64, initial_states=starts)
    return replace(
        cfg,
        name="online",
        train=train,
        eval=replace(cfg.eval, episodes=200),
        pool=replace(cfg.pool, n_workers=0),
    )


def point() -> Config:
    """A few episodes on the point mass, to see that it runs."""
    cfg = point_recipe.point()
    starts = replace(cfg.train.initial_states, group=2)
    return replace(
        cfg,
        name="online",
        env=PointConfig(horizon=24),
        data=replace(cfg.data, episodes=4, heldout=2),
        sft=replace(cfg.sft, steps=10, warmup=2),
        train=replace(cfg.train, groups=4, initial_states=starts),
        eval=replace(cfg.eval, episodes=8, choose=4),
        pool=replace(cfg.pool, n_envs=4, n_workers=1),
    )


def arguments() -> argparse.Namespace:
    p = parser()
    p.add_argument(
        "--work", type=Path, required=True, help="folder of its runs; a base in it is used again"
    )
    p.add_argument("--base", type=Path, help="a run folder of `wamrl sft` to start from instead")
    p.add_argument("--name", default="here", help="of this variant, such as cpu or gpu")
    p.add_argument("--ranks", type=int, default=0, help="as of `wamrl train`; 0: as it chooses")
    p.add_argument("--iterations", type=int, default=12)
    return p.parse_args()


def wamrl(verb: str, recipe: str, out: Path, *words: object) -> tuple[Path, float]:
    """Run a verb, its output going where ours goes; the run folder that it has made, seconds."""
    before = set(out.glob("*/config.json"))
    begin = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "wamrl.cli",
        verb,
        f"benchmarks.online_run:{recipe}",
        "--out",
        out,
        *words,
    ]
    if code := subprocess.run([str(word) for word in command]).returncode:
        raise SystemExit(
            f"online_run: wamrl {verb} has failed (exit code {code}); see its message above"
        )
    seconds = time.perf_counter() - begin
    (config,) = set(out.glob("*/config.json")) - before
    return config.parent, seconds


def base_of(o: argparse.Namespace, recipe: str) -> Path:
    """The run to start from: the given one, that of an earlier call, or a new one."""
    if o.base:
        return o.base
    made = sorted((o.work / "base").glob("*/checkpoints/base"))
    return made[0].parents[1] if made else wamrl("sft", recipe, o.work / "base")[0]


def rows_of(o: argparse.Namespace, run: Path, seconds: float) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    iterations = [m for m in map(json.loads, lines) if "rollout/episodes" in m]
    spent = [sum(m[f"time/{phase}"] for phase in PHASES) for m in iterations]
    rates = [m["rollout/episodes"] / s for m, s in zip(iterations, spent, strict=True)]
    arms = json.loads((run / "summary.json").read_text(encoding="utf-8"))["arms"]
    success = ", ".join(
        f"{name} {arm['successes']}/{arm['episodes']}" for name, arm in arms.items()
    )
    episodes = sum(m["rollout/episodes"] for m in iterations)
    rows = [
        single(
            f"{o.name}: wamrl train, whole",
            [seconds],
            "s",
            f"{episodes:.0f} episodes; held-out {success}",
        ),
        single(
            f"{o.name}: episodes per second of an iteration",
            rates,
            "1/s",
            f"{cores()} cores, ranks {o.ranks}",
        ),
    ]
    for phase in PHASES:
        times = [m[f"time/{phase}"] for m in iterations]
        rows.append(
            single(f"{o.name}: phase {phase}", times, "s", f"{sum(times) / sum(spent):.0%}")
        )
    steps = [m["rollout/steps"] / m["time/rollout"] for m in iterations]
    return rows + [single(f"{o.name}: control steps per second of rollout", steps, "1/s")]


def main() -> None:
    o = arguments()
    recipe = "point" if o.quick else "press_once"
    base = base_of(o, recipe)
    words = ("--base", base, "--ranks", o.ranks, "--train.iterations", o.iterations)
    run, seconds = wamrl("train", recipe, o.work / o.name, *words)
    finish("online_run", rows_of(o, run, seconds), o, run=str(run))


if __name__ == "__main__":
    main()
