"""Run folders and studies as wamrl writes them, without having trained anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wamrl import report
from wamrl.stats.paired import paired_difference

BEFORE = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 0], bool)
AFTER = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 0], bool)
TASK = "point/one"


def arm(success: np.ndarray, sampler: str = "ode") -> dict:
    """A part of `arms`."""
    facts = {"task": TASK, "stages": 1, "seed": 0, "error_over_copy": {4: 0.5, 8: float("nan")}}
    found = report.arm(success=success, length=np.full(len(success), 20), **facts)
    rates = {"ode": float(success.mean()), "zero": 0.3, "explore": 0.2}
    more = {"sampler": sampler, "rates": rates, "success": success.astype(int).tolist()}
    return found | more | {"starts": list(range(len(success)))}


def rows(iterations: int) -> list[dict]:
    """Lines of metrics.jsonl: evaluated before, in the middle and after; diagnosed throughout."""
    found = []
    for i in range(iterations + 1):
        row = {"step": i, "seconds": 10.0 * i, "time/eval": 1.0}
        if i:
            row |= {"rollout/episodes": 32.0, "rollout/fresh": 16.0, "rollout/steps": 640.0}
            row |= {"rollout/success_fresh": 0.25 + 0.05 * i, "rollout/success": 0.25}
            row |= {"time/rollout": 3.0, "time/score": 1.0, "time/actor": 2.0, "time/online": 1.5}
            row |= {"actor/kl": 0.01, "actor/clip_fraction": 0.1, "world/video_loss": 0.7}
            row |= {"world/copy_ratio/4": 0.6, "world/copy_ratio/8": None if i == 2 else 0.4}
            row |= {"diag/drift/block1": 0.01 * i, "diag/alarm": float(i == 3)}
            for name in ("reconstruction", "gain"):
                row |= {f"diag/auc/{name}": 0.7, f"diag/auc_early/{name}": 0.6}
                row |= {f"diag/auc_low/{name}": 0.5, f"diag/auc_high/{name}": 0.9}
                row |= {f"diag/mean/{name}": -0.01, f"diag/mean_success/{name}": -0.01}
                row |= {f"diag/mean_failure/{name}": -0.02}
            for part in ("executed", "imagined"):
                row |= {f"diag/motion/{part}": 0.01, f"diag/sharpness/{part}": 0.05}
        if i in (0, iterations // 2, iterations):
            row |= {"eval/success": 0.3, "eval/episodes": 10.0, "eval/sampler": 1.0}
            row |= {f"eval/success/{name}": 0.3 for name in ("explore", "ode", "zero")}
        found.append(row)
    return found


def write_run(path: Path, *, finished: bool = True, iterations: int = 6, **changes) -> Path:
    """A run folder. changes: of its configuration."""
    config = {"class": "wamrl.config:Config", "name": "point", "seed": 0}
    config |= {"env": {"class": "wamrl.envs.point:PointConfig", "horizon": 40}}
    config |= {"train": {"iterations": 6}} | changes
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    lines = rows(iterations)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    if finished:
        arms = {"before": arm(BEFORE), "after": arm(AFTER, "zero")}
        pairs = {"after - before": paired_difference(BEFORE, AFTER)}
        report.write_summary(path / "summary.json", arms, pairs, seconds=60.0)
    return path


def write_video(path: Path, pictures: int = 6) -> Path:
    """A film of a square that moves."""
    frames = np.full((pictures, 1, 16, 16, 3), 40, np.uint8)
    for i in range(pictures):
        frames[i, 0, 4:8, i : i + 4] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"steps": tuple(range(1, pictures + 1)), "length": pictures, "success": False}
    film = report.Film(executed=frames, imagined=frames, instruction="push the square", **facts)
    report.side_by_side(path, film, title="initial state 1")
    return path


def write_study(path: Path, missing: tuple[str, ...] = ("short/wamrl/2",)) -> Path:
    """A study of one task, two arms beside the base and three seeds, of which cells are missing."""
    arms = ("actor_success", "wamrl")
    task = {"kind": "short", "base": {"name": "point"}, "arms": dict.fromkeys(arms, {})}
    identity = {"name": "tiny", "seeds": [0, 1, 2], "threads": 1, "tasks": {"short": task}}
    path.mkdir(parents=True)
    (path / "study.json").write_text(json.dumps(identity))
    claims = [
        {"number": 1, "text": "joint helps", "arm": "wamrl", "against": "base"},
        {"number": 2, "text": "RL helps", "arm": "actor_success", "against": "base"},
    ]
    claims = [claim | {"kinds": ["short"], "expects": "gain"} for claim in claims]
    about = {"arms": {"wamrl": "everything"}, "claims": claims, "margin": 0.05}
    (path / "about.json").write_text(json.dumps(about))
    generator = np.random.default_rng(0)
    for name, rate in {"base": 0.3, "actor_success": 0.35, "wamrl": 0.9}.items():
        for seed in range(3):
            cell = path / "short" / name / f"seed{seed}"
            if f"short/{name}/{seed}" in missing:
                continue
            write_run(cell, finished=False)
            success = generator.random(50) < rate
            more = {"control_steps": 0 if name == "base" else 4000, "seconds": 60.0}
            more["stages_done"] = success.astype(int).tolist()
            report.write_summary(cell / "summary.json", {"after": arm(success)}, {}, **more)
    return path
