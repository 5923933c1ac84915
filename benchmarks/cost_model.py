"""Does the cost model of docs/scaling.md hold?
Calibrated on two iterations, it predicts others, which are measured.

python benchmarks/cost_model.py [RECIPE] [--groups 8] [--threads 1]

The unit costs come from the timers that every run logs. With w workers, C chunks, S control steps,
K epochs of the actor update and B samples of online SFT:
    rollout = max(S step / w, C act)        the two splits overlap
    score = C score      actor = C K update      online = B online
Each unit of the model is a + b f, where f is the FLOPs of one decision:
calls have a price beside their arithmetic.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wamrl.cli import find_recipe
from wamrl.config import Config
from wamrl.runs.demonstrations import Data, load_data, record
from wamrl.runs.phases import build_wam
from wamrl.train import Learner

PHASES = ("rollout", "score", "actor", "online")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one iteration had to do, and with what."""

    chunks: int
    steps: int  # control steps
    workers: int
    epochs: int
    samples: int  # of online SFT
    flops: float  # of one decision


UNITS = ("step", "act", "score", "update", "online")


def units(metrics: dict[str, float], work: Work) -> dict[str, float]:
    """Seconds per control step of one worker, per chunk (act, score),
    per chunk and epoch, per sample.
    """
    rollout = metrics["time/rollout"]
    return {
        "step": (rollout - metrics["time/env_idle"]) * work.workers / work.steps,
        "act": (rollout - metrics["time/model_idle"]) / work.chunks,
        "score": metrics["time/score"] / work.chunks,
        "update": metrics["time/actor"] / (work.chunks * work.epochs),
        "online": metrics["time/online"] / work.samples,
    }


def predict(small: tuple[dict, Work], large: tuple[dict, Work], work: Work) -> dict[str, float]:
    """Seconds of each phase, by the line through two calibrations."""
    (low, a), (high, b) = ((units(*pair), pair[1].flops) for pair in (small, large))
    share = (work.flops - a) / (b - a)
    u = {name: low[name] + share * (high[name] - low[name]) for name in UNITS}
    return {
        "rollout": max(work.steps * low["step"] / work.workers, work.chunks * u["act"]),
        "score": work.chunks * u["score"],
        "actor": work.chunks * work.epochs * u["update"],
        "online": work.samples * u["online"],
    }


def measure(cfg: Config, data: Data) -> tuple[dict[str, float], Work]:
    """The second iteration of a run from a fresh model, whose episodes last to the horizon."""
    wam = build_wam(cfg)
    wam.normalize.fit(*data.demos.statistics())
    flops = decision_flops(cfg, data)
    with cfg.build_pool() as pool:
        learner = Learner(cfg, wam, data.demos, pool.spec.horizon)
        learner.iterate(pool)
        metrics = learner.iterate(pool)
    steps = int(metrics["rollout/steps"])
    chunks = int(metrics["rollout/episodes"]) * -(-pool.spec.horizon // cfg.model.chunk)
    train = cfg.train
    work = Work(
        chunks=chunks,
        steps=steps,
        workers=cfg.pool.n_workers,
        epochs=train.actor.epochs,
        samples=train.world.steps * train.world.batch,
        flops=flops,
    )
    return metrics, work


def decision_flops(cfg: Config, data: Data) -> float:
    wam, clip = build_wam(cfg).eval(), data.heldout[slice(0, 1)]
    with FlopCounterMode(display=False) as counter:
        wam.act(clip.obs, torch.zeros(1, dtype=torch.long), cfg.flow, [torch.Generator()], True)
    return float(counter.get_total_flops())


def wider(cfg: Config, factor: float) -> Config:
    m = cfg.model
    world, actor = (replace(x, width=int(x.width * factor)) for x in (m.world, m.actor))
    return replace(cfg, model=replace(m, world=world, actor=actor))


def variants(cfg: Config) -> dict[str, Config]:
    """The first two calibrate."""
    train = cfg.train
    updates = replace(
        train,
        actor=replace(train.actor, epochs=train.actor.epochs // 2),
        world=replace(train.world, steps=2 * train.world.steps),
    )
    return {
        "calibration": cfg,
        "calibration, twice the width": wider(cfg, 2),
        "1.5 times the width": wider(cfg, 1.5),
        "three times the episodes": replace(cfg, train=replace(train, groups=3 * train.groups)),
        "two workers": replace(cfg, pool=replace(cfg.pool, n_workers=2)),
        "half the epochs, twice the SFT": replace(cfg, train=updates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cfg = find_recipe(args.recipe)()
    actor = replace(cfg.train.actor, value_warmup=0, target_kl=1e9)  # every update is done,
    online = replace(cfg.train.world, demo_share=1.0)  # also without a success
    cfg = replace(cfg, train=replace(cfg.train, groups=args.groups, actor=actor, world=online))
    cfg = replace(cfg, pool=replace(cfg.pool, n_workers=1))
    with tempfile.TemporaryDirectory() as folder:
        record(cfg, Path(folder))
        data = load_data(cfg, Path(folder))
        found = []
        print(
            "| iteration | "
            + " | ".join(PHASES)
            + " | sum | measured / predicted |\n"
            + "|---" * 7
            + "|"
        )
        for name, variant in variants(cfg).items():
            found.append(measure(variant, data))
            if len(found) < 2:
                continue
            rows = (
                {name: found[-1]}
                if len(found) > 2
                else dict(zip(variants(cfg), found, strict=False))
            )
            for title, (metrics, work) in rows.items():
                print(row(title, metrics, predict(*found[:2], work)), flush=True)
    print(f"seconds, predicted ones in parentheses; units of the calibration: {units(*found[0])}")


def row(title: str, metrics: dict[str, float], predicted: dict[str, float]) -> str:
    real = {p: metrics[f"time/{p}"] for p in PHASES}
    cells = [f"{real[p]:.1f} ({predicted[p]:.1f})" for p in PHASES]
    total, expected = sum(real.values()), sum(predicted.values())
    return (
        f"| {title} | {' | '.join(cells)} | {total:.1f} ({expected:.1f}) | {total / expected:.2f} |"
    )


if __name__ == "__main__":
    main()
