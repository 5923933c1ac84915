"""Two arms of a study against each other, state by state.

    python -m benchmarks.arms docs/study/metaworld press-once wamrl bc_success
    python -m benchmarks.arms docs/study/robosuite lift wamrl base --study robosuite

Prints the first less the second in points with its hierarchical 95 % interval (seeds, then states),
and seed by seed. The report has this of every arm against the base and against `actor_success`;
other pairs are not among the claims that were fixed beforehand.

Then the same along the run, from the evaluations during training: fewer states, and what a single
one of them did is not kept, so these have no interval of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.results_table import interval
from wamrl.recipes.find import build
from wamrl.study import StudyConfig
from wamrl.study.cells import finished, result
from wamrl.study.results import Results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder of the study")
    parser.add_argument("task")
    parser.add_argument("arm")
    parser.add_argument("against", help="another arm, or base")
    parser.add_argument(
        "--study", default="metaworld", help="as in `wamrl list`, or module:function"
    )
    o = parser.parse_args()
    try:
        study = build(o.study, StudyConfig)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    for line in compare(study, o.out, o.task, o.arm, o.against):
        print(line)


def compare(study: StudyConfig, out: Path, task: str, arm: str, against: str) -> Iterator[str]:
    """What is printed; SystemExit of one sentence where no seed has both arms."""
    cells = [c for c in study.cells() if c.task == task and finished(out, c)]
    results = Results([result(study, c, out) for c in cells], [arm, against], [task])
    found = results.difference([task], arm, against)
    if found is None:
        raise SystemExit(f"{out}: no seed of {task} has finished cells of both {arm} and {against}")
    points = interval(found.value, found.low, found.high)
    pairs = results.pairs(task, arm, against)
    seeds = [
        f"{s}: {100 * (mine.mean() - other.mean()):+.1f}" for s, (other, mine) in pairs.items()
    ]
    yield f"{task}, {arm} less {against}: {points}, n = {found.episodes}; {', '.join(seeds)}"
    yield from along_the_run(results, task, arm, against)


def along_the_run(results: Results, task: str, arm: str, against: str) -> Iterator[str]:
    """One line per number of episodes after which all seeds of both arms were evaluated."""
    mine = {c.seed: dict(c.evaluated) for c in results.of(task, arm)}
    others = {c.seed: dict(c.evaluated) for c in results.of(task, against)}
    seeds = sorted(mine.keys() & others.keys())
    points = [{*mine[s]} & {*others[s]} for s in seeds]
    for episodes in sorted(set.intersection(*points) - {0}):  # at 0 both are the base
        change = [100 * (mine[s][episodes] - others[s][episodes]) for s in seeds]
        by_seed = ", ".join(f"{s}: {c:+.1f}" for s, c in zip(seeds, change, strict=True))
        yield f"after {episodes:.0f} episodes: {np.mean(change):+.1f}; {by_seed}"


if __name__ == "__main__":
    main()
