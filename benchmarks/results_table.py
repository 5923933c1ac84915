"""Markdown table of before/after runs, from their summary.json: `python benchmarks/results_table.py RUN [RUN ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

from wamrl.report import read_summary

HEAD = (
    "| run | seed | n | before | after | difference, 95 % interval | McNemar p | error / copy before | after | online |"
)


def percent(value: float) -> str:
    return f"{100 * value:+.1f}"


def ratios(arm: dict) -> str:
    return ", ".join(f"+{offset}: {value:.2f}" for offset, value in arm["error_over_copy"].items())


def row(run: Path) -> str:
    summary = read_summary(run / "summary.json")
    before, after = summary["arms"]["before"], summary["arms"]["after"]
    pair = summary["paired"]["after - before"]
    cells = [
        run.name.rsplit("-", 2)[0], before["seed"], before["episodes"], f"{before['rate']:.1%}", f"{after['rate']:.1%}",
        f"{percent(pair['difference'])} [{percent(pair['low'])}, {percent(pair['high'])}]", f"{pair['p_value']:.2g}",
        ratios(before), ratios(after), f"{summary['seconds'] / 60:.1f} min",
    ]  # fmt: skip
    return "| " + " | ".join(str(c) for c in cells) + " |"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/results_table.py RUN [RUN ...]")
    print(HEAD)
    print("|" + "---|" * HEAD.count(" | ") + "---|")
    for name in sys.argv[1:]:
        print(row(Path(name)))
