"""The learning curve of a run as numbers, from the lines of its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TASK = "eval/task/"  # how the metrics of a suite's tasks begin


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a learning curve."""

    x: float  # e.g. the iteration, or episodes so far
    successes: int
    episodes: int


def evaluations(rows: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Each evaluation of a run's log, with the number of online episodes that came before it."""
    found = []
    episodes = 0
    for row in rows:
        episodes += int(row.get("rollout/episodes") or 0)
        if row.get("eval/success") is not None:
            found.append((episodes, row))
    return found


def run_curves(
    rows: Sequence[dict[str, Any]], samplers: Sequence[str]
) -> tuple[dict[str, list[Point]], tuple[str, ...]]:
    """The curves of a run's log over online episodes so far, and the names of those to draw thin.

    Evaluated by the deployed sampler, whichever that was at the time; by each of `samplers` that
    was not always the deployed one (thin); and exploring, on training states that were never tried
    before. Curves without a point are left out.
    """
    found = evaluations(rows)
    deployed = {samplers[int(row["eval/sampler"])] for _, row in found}
    always = deployed.pop() if len(deployed) == 1 else None
    name = f"evaluated, sampler {always!r}" if always else "evaluated, deployed sampler"
    curves = {f"{name} (held-out states)": _evaluated(found, "eval/success")}
    thin = []
    for sampler in samplers:
        if sampler != always:
            label = f"sampler {sampler!r}"
            curves[label] = _evaluated(found, f"eval/success/{sampler}")
            thin.append(label)
    curves["exploring (fresh training states)"] = _exploring(rows)
    return {label: points for label, points in curves.items() if points}, tuple(thin)


def task_curves(rows: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    """Success of the deployed sampler on each task of a suite, over online episodes so far.

    Episodes of an evaluation are shared out evenly over the tasks. Empty for a run of one task.
    """
    found = evaluations(rows)
    keys = dict.fromkeys(key for _, row in found for key in row if key.startswith(TASK))
    curves = {}
    for key in keys:
        points = []
        for x, row in found:
            rate = row.get(key)
            n = round(row["eval/episodes"] / len(keys))
            if rate is not None:
                points.append(Point(x=x, successes=round(rate * n), episodes=n))
        curves[key.removeprefix(TASK)] = points
    return {name: points for name, points in curves.items() if points}


def _evaluated(found: list[tuple[int, dict[str, Any]]], key: str) -> list[Point]:
    points = []
    for x, row in found:
        rate = row.get(key)
        n = int(row["eval/episodes"])
        if rate is not None:
            points.append(Point(x=x, successes=round(rate * n), episodes=n))
    return points


def _exploring(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """At the episodes before each iteration: its own show what those before have taught."""
    points = []
    episodes = 0
    for row in rows:
        rate = row.get("rollout/success_fresh")
        n = int(row.get("rollout/fresh") or 0)
        if rate is not None:
            points.append(Point(x=episodes, successes=round(rate * n), episodes=n))
        episodes += int(row.get("rollout/episodes") or 0)
    return points
