"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from wamrl.report.summary import wilson


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a learning curve."""

    x: float  # e.g. the iteration, or episodes so far
    successes: int
    episodes: int


def evaluations(rows: Sequence[dict]) -> list[tuple[int, dict]]:
    """Of a run's log: each evaluation, with the online episodes that came before it."""
    found = []
    episodes = 0
    for row in rows:
        episodes += int(row.get("rollout/episodes") or 0)
        if row.get("eval/success") is not None:
            found.append((episodes, row))
    return found


def run_curves(
    rows: Sequence[dict], samplers: Sequence[str]
) -> tuple[dict[str, list[Point]], tuple[str, ...]]:
    """The curves of a run's log over online episodes so far, and the names of those to draw thin.

    Evaluated by the deployed sampler, whichever that was at the time; by each sampler that was not
    always the deployed one (thin); and exploring, on training states that were never tried before.
    """
    found = evaluations(rows)
    deployed = [samplers[int(row["eval/sampler"])] for _, row in found]
    always = deployed[0] if len(set(deployed)) == 1 else None
    name = f"evaluated, sampler {always!r}" if always else "evaluated, deployed sampler"
    curves = {f"{name} (held-out states)": [_point(x, row, "eval/success") for x, row in found]}
    others = {f"sampler {s!r}": f"eval/success/{s}" for s in samplers if s != always}
    for label, key in others.items():
        curves[label] = [_point(x, row, key) for x, row in found if row.get(key) is not None]
    exploring = []
    episodes = 0
    for row in rows:
        rate = row.get("rollout/success_fresh")
        n = int(row.get("rollout/fresh") or 0)
        if rate is not None:  # these episodes show what those before them have taught
            exploring.append(Point(x=episodes, successes=round(rate * n), episodes=n))
        episodes += int(row.get("rollout/episodes") or 0)
    curves["exploring (fresh training states)"] = exploring
    return {label: points for label, points in curves.items() if points}, tuple(others)


def _point(x: float, row: dict, key: str) -> Point:
    n = int(row["eval/episodes"])
    return Point(x=x, successes=round(row[key] * n), episodes=n)


def learning_curve(
    path: Path,
    curves: dict[str, Sequence[Point]],
    *,
    thin: Collection[str] = (),
    title: str = "",
    x_label: str = "iteration",
) -> None:
    """A PNG of success (%) over x, one line per named curve, with its Wilson 95 % band.

    thin: names of curves that are drawn thin and without a band.
    Points without episodes are left out; ValueError if nothing is left to draw.
    """
    # slow to import, and needs no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = {name: [p for p in points if p.episodes] for name, points in curves.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        raise ValueError(
            "there is no episode to draw a learning curve of: run at least one iteration"
        )
    figure = Figure(figsize=(7, 4.8), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dashes = cycle(((0, (1, 1)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5))))
    for name, points in drawn.items():
        x = [p.x for p in points]
        y = [100 * p.successes / p.episodes for p in points]
        if name in thin:
            axes.plot(x, y, color="#555555", linewidth=0.9, linestyle=next(dashes), label=name)
            continue
        intervals = [wilson(p.successes, p.episodes) for p in points]
        low = [100 * interval[0] for interval in intervals]
        high = [100 * interval[1] for interval in intervals]
        (line,) = axes.plot(x, y, marker="o", markersize=3.5, label=name)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
        if len(points) == 1:  # a band of no width cannot be seen
            axes.vlines(x, low, high, color=line.get_color(), alpha=0.5)
    axes.set(xlabel=x_label, ylabel="success, %", ylim=(-2, 102))
    axes.set_title(title, fontsize=10, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        title="bands: Wilson 95 %", loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    figure.savefig(path, format="png")
