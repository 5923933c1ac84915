"""What a run folder says: its evaluated models, its log, its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wamrl.page.folder import RunFolder, number
from wamrl.report import Point, ratio_text, run_curves
from wamrl.stats.paired import Paired, paired_difference, wilson
from wamrl.types import SAMPLERS

PHASES = {
    "rollout": "simulation and acting",
    "score": "imagining, rewarding, diagnosing",
    "actor": "policy update",
    "online": "world-model update and cloning",
    "eval": "evaluation during training",
}
Rows = Sequence[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An evaluated model, as `summary.json` has it; rates in [0, 1]."""

    name: str
    task: str
    successes: int
    episodes: int
    sampler: str  # the deployed one, "" if unknown
    mean_length: float | None  # control steps
    heldout: dict[str, float | None]  # error over copying by offset, on demonstrations
    executed: dict[str, float | None]  # the same on its own episodes
    rates: dict[str, float]  # success of every sampler
    outcomes: dict[int, bool] = field(repr=False)  # by initial state; empty if unknown

    @classmethod
    def of(cls, name: str, content: Any) -> Arm:
        """From a part of `arms`; ValueError, LookupError or TypeError where it is none."""
        starts = content.get("starts", [])
        success = content.get("success", [])
        return cls(
            name=name,
            task=str(content.get("task", "")),
            successes=int(content["successes"]),
            episodes=int(content["episodes"]),
            sampler=str(content.get("sampler", "")),
            mean_length=number(content.get("mean_length")),
            heldout=_numbers(content.get("error_over_copy", {})),
            executed=_numbers(content.get("error_over_copy_executed", {})),
            rates={k: v for k, v in _numbers(content.get("rates", {})).items() if v is not None},
            outcomes={int(i): bool(won) for i, won in zip(starts, success, strict=True)},
        )

    def __post_init__(self) -> None:
        wilson(self.successes, self.episodes)  # ValueError for impossible counts
        if self.episodes < 1:
            raise ValueError("no episode was evaluated")

    @property
    def rate(self) -> float:
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson(self.successes, self.episodes)

    @property
    def ratios(self) -> str:
        """Error over copying on held-out demonstrations, in words."""
        return ratio_text(self.heldout) or "not measured"


def _numbers(content: dict) -> dict[str, float | None]:
    return {str(key): number(value) for key, value in content.items()}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as far as its folder tells."""

    name: str
    path: Path
    config: dict[str, Any]
    record: dict[str, Any]  # run.json; empty in runs of before there was one
    arms: dict[str, Arm]
    rows: Rows = field(repr=False)

    @property
    def task(self) -> str:
        """What was evaluated, else what is configured."""
        if self.arms:
            return self.last.task
        env = self.config.get("env")
        return str(env.get("task", "")) if isinstance(env, dict) else ""

    @property
    def last(self) -> Arm | None:
        """The model that the run ends with."""
        return next((self.arms[n] for n in ("after", "model") if n in self.arms), None)

    @property
    def iterations(self) -> tuple[int, int]:
        """Of the online loop: how many are logged, how many are configured."""
        train = self.config.get("train")
        planned = number(train.get("iterations")) if isinstance(train, dict) else None
        done = max((row["step"] for row in self.rows if "rollout/episodes" in row), default=0)
        return int(done), int(planned or 0)

    @property
    def seconds(self) -> dict[str, float]:
        """Of the online loop and what came before it in the log, by phase; the rest as `other`."""
        found = {}
        for phase in PHASES:
            spent = [row[f"time/{phase}"] for row in self.rows if f"time/{phase}" in row]
            if spent:
                found[phase] = sum(spent)
        sft = [row["seconds"] for row in self.rows if "sft/action_loss" in row and "seconds" in row]
        if sft:
            found["sft"] = max(sft)
        whole = max((row.get("seconds", 0.0) for row in self.rows), default=0.0)
        rest = whole - sum(found.values())
        return found | ({"other": rest} if found and rest > 0.01 * whole else {})

    def curves(self) -> tuple[dict[str, list[Point]], tuple[str, ...]]:
        """As `report.run_curves`, of what can be read."""
        return run_curves([_readable(row) for row in self.rows], SAMPLERS)


def _readable(row: dict[str, float]) -> dict[str, float]:
    """Without the rates that are none, and without an evaluation that lacks its numbers."""
    rates = ("eval/success", "rollout/success_fresh")
    found = {
        key: value
        for key, value in row.items()
        if not key.startswith(rates) or 0 <= value <= 1 or key.endswith(("_low", "_high"))
    }
    sampler = row.get("eval/sampler", -1)
    if sampler not in range(len(SAMPLERS)) or row.get("eval/episodes", 0) < 1:
        found.pop("eval/success", None)
    return found


def read_run(folder: RunFolder) -> Run:
    """What the folder says; ValueError of one sentence if it is not a run folder."""
    config = folder.json("config.json")
    if config is None:
        raise ValueError(
            f"{folder.path} is not a run folder (no config.json): name one that wamrl has made, "
            "or the folder of a study"
        )
    return Run(
        name=folder.name,
        path=folder.path,
        config=config,
        record=folder.json("run.json") or {},
        arms=_arms(folder),
        rows=folder.rows(),
    )


def _arms(folder: RunFolder) -> dict[str, Arm]:
    content = (folder.json("summary.json") or {}).get("arms", {})
    try:
        found = {str(name): Arm.of(str(name), part) for name, part in content.items()}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{folder.path / 'summary.json'} is not what wamrl writes ({error!r}): "
            "run the evaluation again"
        ) from error
    order = ("before", "after", "model")
    return {name: found[name] for name in (*order, *found) if name in found}


def pair(before: Arm, after: Arm) -> Paired | None:
    """after - before, on the initial states of both; None if there are none."""
    common = sorted(before.outcomes.keys() & after.outcomes.keys())
    if not common:
        return None
    old = np.array([before.outcomes[i] for i in common])
    new = np.array([after.outcomes[i] for i in common])
    return paired_difference(old, new)


def percent(rate: float) -> str:
    """0.515 -> "51.5 %"."""
    return f"{100 * rate:.1f} %"


def interval_text(ends: tuple[float, float]) -> str:
    """(0.446, 0.583) -> "44.6 to 58.3 %"."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def p_text(p: float) -> str:
    """A p-value: "p = 0.031", "p < 0.0001"."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
