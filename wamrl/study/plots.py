"""The figures of a study. An arm has one colour and one marker in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.report.style import GUIDE, PER_CENT, legend_beside, saved_figure
from wamrl.stats.nested import Estimate
from wamrl.study.results import Results, on_one_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Dark or saturated, apart also in lightness; grey is for the first arm, the base.
_COLOURS = (
    "#777777",
    "#0072b2",
    "#e69f00",
    "#8c564b",
    "#56b4e9",
    "#cc3311",
    "#009e73",
    "#cc79a7",
    "#332288",
    "#999933",
    "#000000",
    "#44aa99",
    "#aa4499",
    "#ddaa33",
)
_MARKERS = "osD^vP*Xhpd<>8"
_FAINT = 0.10  # opacity of a band, of which a dozen may overlap
Looks = dict[str, dict[str, str]]  # arm -> its colour and marker


def looks_of(arms: Sequence[str]) -> Looks:
    """Colour and marker of each arm of a study.

    arms: all of them, finished or not, so that nothing changes while the study runs.
    """
    found = {}
    for i, arm in enumerate(arms):
        colour = _COLOURS[i % len(_COLOURS)]
        marker = _MARKERS[i % len(_MARKERS)]
        found[arm] = {"color": colour, "marker": marker}
    return found


def write_plots(folder: Path, results: Results, looks: Looks) -> None:
    """arms_TASK.png and learning_TASK.png of every task, horizon_TASK.png where it has one."""
    for task in results.tasks:
        arms = len([a for a in results.arms if results.of(task, a)])
        figures = [("arms", draw_arms, 1.4 + 0.38 * arms), ("learning", draw_learning, 4.6)]
        if results.has_horizon(task):
            figures.append(("horizon", draw_horizon, 4.6))
        for name, draw, height in figures:
            with saved_figure(folder / f"{name}_{task}.png", 8, height) as figure:
                draw(figure.add_subplot(), results, task, looks)


def _title(results: Results, task: str, text: str) -> str:
    return f"{task} ({results.kind(task)}): {text}"


def draw_arms(axes: Axes, results: Results, task: str, looks: Looks) -> None:
    """Success of every arm with its interval; each seed as a small hollow dot."""
    arms = [a for a in results.arms if results.of(task, a)]
    for y, arm in enumerate(arms):
        mean = results.rate(task, arm)
        colour = looks[arm]["color"]
        if y == 0:
            axes.axvline(100 * mean.value, **GUIDE | {"color": colour})
        axes.hlines(y, 100 * mean.low, 100 * mean.high, color=colour, linewidth=2.2, alpha=0.7)
        axes.plot(100 * mean.value, y, **looks[arm], markersize=8)
        seeds = [100 * cell.rate for cell in results.of(task, arm)]
        hollow = {"marker": "o", "markerfacecolor": "none", "linestyle": "none"}
        axes.plot(seeds, [y + 0.24] * len(seeds), color=colour, **hollow)
    axes.set_yticks(range(len(arms)), arms)
    axes.set(xlim=PER_CENT, ylim=(len(arms) - 0.4, -0.6))
    axes.set(xlabel="success on held-out initial states, %", ylabel="arm")
    axes.set_title(_title(results, task, "mean, 95 % interval, seeds (small)"))


def draw_horizon(axes: Axes, results: Results, task: str, looks: Looks) -> None:
    """Success against the number of sub-goals K, where the models were evaluated at several.

    Else the share of evaluation episodes that completed at least k sub-goals, per arm, over seeds.
    """
    if results.lengths(task):
        _draw_lengths(axes, results, task, looks)
    else:
        _draw_stages(axes, results, task, looks)
    axes.set_ylim(PER_CENT)
    legend_beside(axes)


def _draw_lengths(axes: Axes, results: Results, task: str, looks: Looks) -> None:
    """One line per arm, its 95 % interval as a band and bars; arms are a little apart in K."""
    lengths = results.lengths(task)
    own = results.goals(task)
    arms = [a for a in results.arms if any(c.lengths for c in results.of(task, a))]
    axes.axvline(own, **GUIDE)
    for i, arm in enumerate(arms):
        shift = min(0.06, 0.4 / len(arms)) * (i - (len(arms) - 1) / 2)
        found = {k: results.at_length(task, arm, k) for k in lengths}
        known = {k: estimate for k, estimate in found.items() if estimate is not None}
        x = np.array(list(known)) + shift
        value, low, high = _per_cent(list(known.values()))
        axes.fill_between(x, low, high, color=looks[arm]["color"], alpha=_FAINT, linewidth=0)
        _with_bars(axes, x, value, low, high, label=arm, **looks[arm])
    axes.set_xticks(lengths, [f"{k}\n(trained)" if k == own else f"{k}" for k in lengths])
    axes.set_xlim(lengths[0] - 0.4, lengths[-1] + 0.4)
    axes.set(xlabel="sub-goals K of the task", ylabel="success, deployed sampler, %")
    axes.set_title(_title(results, task, "the same models on K sub-goals, 95 % intervals"))


def _draw_stages(axes: Axes, results: Results, task: str, looks: Looks) -> None:
    arms = [a for a in results.arms if results.of(task, a)]
    stages = range(1, results.goals(task) + 1)
    for i, arm in enumerate(arms):
        # side by side, so that intervals can be told apart
        shift = 0.5 * (i / max(1, len(arms) - 1) - 0.5)
        value, low, high = _per_cent([results.rate(task, arm, k) for k in stages])
        _with_bars(axes, np.array(stages) + shift, value, low, high, label=arm, **looks[arm])
    axes.set_xticks(stages)
    axes.set_xlim(0.5, stages[-1] + 0.5)
    axes.set(xlabel="sub-goals k", ylabel="episodes with at least k, %")
    axes.set_title(_title(results, task, "how far episodes get, 95 % intervals"))


def _per_cent(estimates: Sequence[Estimate]) -> np.ndarray:
    """(3, n): values, and the ends of their intervals."""
    return 100 * np.array([(e.value, e.low, e.high) for e in estimates]).T


def _with_bars(axes: Axes, x, value, low, high, **look) -> None:
    bars = np.maximum([value - low, high - value], 0)
    axes.errorbar(x, value, bars, markersize=5.5, linewidth=1.4, elinewidth=0.9, **look)


def draw_learning(axes: Axes, results: Results, task: str, looks: Looks) -> None:
    """Success over what an arm has learned from: mean over seeds, band: their range.

    Where runs were evaluated while they trained: on held-out states, over episodes. Else:
    exploring, on training states never tried before, over control steps.
    """
    cells = [cell for arm in results.arms for cell in results.of(task, arm)]
    during = any(len(cell.evaluated) > 2 for cell in cells)  # two are before and after
    for arm in results.arms:
        curves = [c.evaluated if during else c.curve for c in results.of(task, arm)]
        curves = [np.array(points) for points in curves if points]
        if curves:
            x, y = on_one_axis(curves)
            axes.plot(x, 100 * y.mean(0), **looks[arm], label=arm)
            edges = 100 * y.min(0), 100 * y.max(0)
            axes.fill_between(x, *edges, color=looks[arm]["color"], alpha=_FAINT, linewidth=0)
    if during:
        axes.set(xlabel="online episodes so far", ylabel="success, deployed sampler, %")
    else:
        axes.set(xlabel="control steps learned from so far", ylabel="success, exploring, %")
    states = "held-out" if during else "fresh training"
    axes.set_title(_title(results, task, f"{states} states; mean and range of seeds"))
    axes.set_ylim(PER_CENT)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if v >= 1000 else f"{v:g}")
    legend_beside(axes)
