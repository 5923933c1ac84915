"""Markdown tables of before/after runs: `python -m benchmarks.results_table RUN [RUN ...]`.

First every run before and after, each under its deployed sampler; then the `quickstart` run of a
seed against every other of that seed, after training, on the same initial states: seed by seed
(paired bootstrap over states) and over the seeds (hierarchical: seeds, then states).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from wamrl.report import ratio_text, read_summary
from wamrl.stats.nested import hierarchical
from wamrl.stats.paired import paired_difference

HEAD = [
    "run",
    "seed",
    "before, sampler",
    "after, 95 % interval, sampler",
    "difference, points",
    "McNemar p",
    "after, all samplers",
    "error / copy before",
    "after",
]
AGAINST = ["quickstart against", "seeds", "seed by seed, points", "over seeds, points"]


def interval(value: float, low: float, high: float) -> str:
    """Points: "+9.5 [+6.0, +14.5]"."""
    shown = [round(100 * x, 1) + 0.0 for x in (value, low, high)]  # no minus zero
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*shown)


def row(name: str, summary: dict) -> list:
    """One run, before and after."""
    before = summary["arms"]["before"]
    after = summary["arms"]["after"]
    pair = summary["paired"]["after - before"]
    low, high = after["wilson95"]
    return [
        name,
        before["seed"],
        f"{before['rate']:.1%}, `{before['sampler']}`",
        f"{after['rate']:.1%} [{low:.1%}, {high:.1%}], `{after['sampler']}`",
        interval(pair["difference"], pair["low"], pair["high"]),
        f"{pair['p_value']:.2g}",
        ", ".join(f"{sampler} {rate:.1%}" for sampler, rate in after["rates"].items()),
        ratio_text(before["error_over_copy"]),
        ratio_text(after["error_over_copy"]),
    ]


def outcomes(mine: dict, other: dict) -> tuple[np.ndarray, np.ndarray]:
    """Success after training on the initial states that both runs finished, bool (E,) each."""
    won = []
    for summary in (mine, other):
        after = summary["arms"]["after"]
        won.append(dict(zip(after["starts"], after["success"], strict=True)))
    common = sorted(won[0].keys() & won[1].keys())
    return tuple(np.array([w[i] for i in common], bool) for w in won)


def against(name: str, pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> list:
    """The quickstart against one control. pairs: seed -> (quickstart, control)."""
    per_seed = []
    for seed, (mine, other) in sorted(pairs.items()):
        pair = paired_difference(other, mine)
        per_seed.append(f"{seed}: {interval(pair.difference, pair.low, pair.high)}")
    changes = [mine.astype(float) - other for mine, other in pairs.values()]
    over = hierarchical([changes], bounds=(-1, 1))
    pooled = interval(over.value, over.low, over.high)
    return [name, len(pairs), "; ".join(per_seed), pooled]


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main(folders: list[Path]) -> None:
    runs = {}
    for folder in folders:
        summary = read_summary(folder / "summary.json")
        runs[folder.name.rsplit("-", 2)[0], summary["arms"]["before"]["seed"]] = summary
    print(table(HEAD, [row(name, summary) for (name, _), summary in runs.items()]))
    controls: dict[str, dict] = {}
    for (name, seed), summary in runs.items():
        if name != "quickstart" and ("quickstart", seed) in runs:
            pairs = controls.setdefault(name, {})
            pairs[seed] = outcomes(runs["quickstart", seed], summary)
    if controls:
        print("\n" + table(AGAINST, [against(name, pairs) for name, pairs in controls.items()]))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.results_table RUN [RUN ...]")
    main([Path(name) for name in sys.argv[1:]])
