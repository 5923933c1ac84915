"""Markdown tables of before/after runs, from their summary.json:
`python benchmarks/results_table.py RUN [RUN ...]`.

The second table compares, per seed, the `quickstart` run with every other after training,
on the same initial states.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from wamrl.report import Paired, paired_difference, ratio_text, read_summary

HEAD = [
    "run",
    "seed",
    "n",
    "before",
    "after",
    "difference, 95 % interval",
    "McNemar p",
    "error / copy before",
    "after",
]


def points(pair: dict) -> str:
    low, high = (f"{100 * pair[k]:+.1f}" for k in ("low", "high"))
    return f"{100 * pair['difference']:+.1f} [{low}, {high}]"


def row(name: str, summary: dict) -> list:
    before, after = summary["arms"]["before"], summary["arms"]["after"]
    pair = summary["paired"]["after - before"]
    rates = [f"{arm['rate']:.1%}" for arm in (before, after)]
    ratios = [ratio_text(arm["error_over_copy"]) for arm in (before, after)]
    p_value = f"{pair['p_value']:.2g}"
    return [name, before["seed"], before["episodes"], *rates, points(pair), p_value, *ratios]


def compare(mine: dict, other: dict) -> Paired:
    """quickstart - other, after training."""
    wins = [
        dict(zip(s["arms"]["after"]["starts"], s["arms"]["after"]["success"], strict=True))
        for s in (other, mine)
    ]
    common = sorted(wins[0].keys() & wins[1].keys())
    return paired_difference(*(np.array([w[i] for i in common], bool) for w in wins))


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main(folders: list[Path]) -> None:
    runs = {
        (f.name.rsplit("-", 2)[0], s["arms"]["before"]["seed"]): s
        for f in folders
        for s in [read_summary(f / "summary.json")]
    }
    print(table(HEAD, [row(name, summary) for (name, _), summary in runs.items()]))
    pairs = [
        [
            name,
            seed,
            points(vars(pair := compare(runs["quickstart", seed], summary))),
            f"{pair.p_value:.2g}",
        ]
        for (name, seed), summary in runs.items()
        if name != "quickstart" and ("quickstart", seed) in runs
    ]
    print(
        "\n"
        + table(
            ["quickstart against", "seed", "difference after training, 95 % interval", "McNemar p"],
            pairs,
        )
    )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/results_table.py RUN [RUN ...]")
    main([Path(name) for name in sys.argv[1:]])
