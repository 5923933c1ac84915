"""Markdown table of `benchmarks/suite_study.sh`: `python -m benchmarks.suite_table OUT`.

Success before and after training of the one model and of the models for one task each, on the same
initial states, what each gained, and their difference after training: per task over the seeds, and
pooled over the tasks. Intervals resample seeds within tasks, then states within seeds
(`stats/nested.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.results_table import interval, table
from wamrl.report import read_summary
from wamrl.stats.nested import hierarchical

HEAD = ["task", "seeds", "one model", "gained, points", "own model", "gained, points"]
HEAD += ["one less own after, points"]
SUITE = "suite"
Success = dict[str, dict[str, np.ndarray]]  # of a run: task -> arm -> success of each of its states


def success(summary: dict) -> Success:
    """Of every task in the order of its states, before and after training, bool (E,).

    Tasks take turns from one initial state to the next (`wamrl/envs/suite.py`).
    """
    found: Success = {}
    for arm in ("before", "after"):
        part = summary["arms"][arm]
        wins = [win for _, win in sorted(zip(part["starts"], part["success"], strict=True))]
        names = list(part["tasks"])
        for i, name in enumerate(names):
            found.setdefault(name, {})[arm] = np.array(wins[i :: len(names)], bool)
    return found


def runs(folder: Path) -> tuple[Success, Success] | None:
    """One seed's: of the one model, and of the models for one task each; None if unfinished."""
    summaries = {}
    for path in folder.glob("*/summary.json"):
        summaries[path.parent.name.rsplit("-", 2)[0]] = success(read_summary(path))
    suite = summaries.pop(SUITE, None)
    if suite is None or not suite.keys() <= summaries.keys():
        return None
    return suite, {task: summaries[task][task] for task in suite}


def row(name: str, pairs: list[list[tuple[dict, dict]]]) -> list:
    """pairs: of each task, of each seed, the arms of the one model and of the task's own."""
    cells = [name, min(len(seeds) for seeds in pairs)]
    for side in (0, 1):
        before, after = (
            np.mean([np.mean([pair[side][arm].mean() for pair in seeds]) for seeds in pairs])
            for arm in ("before", "after")
        )
        cells.append(f"{before:.1%} -> {after:.1%}")
        gains = [[_less(p[side]["after"], p[side]["before"]) for p in seeds] for seeds in pairs]
        cells.append(_points(gains))
    apart = [[_less(one["after"], own["after"]) for one, own in seeds] for seeds in pairs]
    return [*cells, _points(apart)]


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """State by state."""
    return a.astype(float) - b


def _points(changes: list[list[np.ndarray]]) -> str:
    """changes: of each task, of each seed, of each state."""
    found = hierarchical(changes, bounds=(-1, 1))
    return interval(found.value, found.low, found.high)


def main(out: Path) -> None:
    finished = [found for folder in sorted(out.glob("s[0-9]*")) if (found := runs(folder))]
    if not finished:
        raise SystemExit(f"{out}: no seed is finished: run benchmarks/suite_study.sh")
    tasks = sorted(finished[0][0])
    pairs = {task: [(suite[task], own[task]) for suite, own in finished] for task in tasks}
    rows = [row(task, [pairs[task]]) for task in tasks]
    print(table(HEAD, [*rows, row("all", list(pairs.values()))]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
