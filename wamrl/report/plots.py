"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wamrl.report.numbers import wilson


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a learning curve."""

    x: float  # e.g. the iteration, or episodes so far
    successes: int
    episodes: int


def learning_curve(
    path: Path, curves: dict[str, Sequence[Point]], *, title: str = "", x_label: str = "iteration"
) -> None:
    """A PNG of success (%) over x, one line per named curve, with its Wilson 95 % band.

    Points without episodes are left out; ValueError if nothing is left to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and needs no display
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = {name: [p for p in points if p.episodes] for name, points in curves.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        raise ValueError("there is no episode to draw a learning curve of: run at least one iteration")
    figure = Figure(figsize=(7, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in drawn.items():
        x = [p.x for p in points]
        low, high = zip(*((100 * v for v in wilson(p.successes, p.episodes)) for p in points), strict=True)
        (line,) = axes.plot(x, [100 * p.successes / p.episodes for p in points], marker="o", markersize=3.5, label=name)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
        if len(points) == 1:  # a band of no width cannot be seen
            axes.vlines(x, low, high, color=line.get_color(), alpha=0.5)
    axes.set(xlabel=x_label, ylabel="success, %", ylim=(0, 100), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="band: Wilson 95 %", loc="best", frameon=False)
    figure.savefig(path, format="png")
