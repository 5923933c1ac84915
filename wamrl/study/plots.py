"""The figures of a study. An arm has one colour and one marker in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wamrl.study.results import Results

# Dark or saturated, apart also in lightness; grey is for the first arm, the base.
_COLOURS = (
    "#777777",
    "#0072b2",
    "#56b4e9",
    "#8c564b",
    "#e69f00",
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
Style = dict[str, dict[str, str]]


def styles(arms: Sequence[str]) -> Style:
    """Colour and marker of each arm of the study, finished or not,
    so that they never change while it runs.
    """
    return {
        arm: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, arm in enumerate(arms)
    }


def arms_plot(path: Path, results: Results, task: str, style: Style) -> None:
    """Success of every arm with its interval; each seed as a small hollow dot."""
    arms = [a for a in results.arms if results.of(task, a)]
    figure, axes = _figure(7.5, 1.4 + 0.38 * len(arms))
    for y, arm in enumerate(arms):
        e, look = results.rate(task, arm), style[arm]
        axes.hlines(y, 100 * e.low, 100 * e.high, color=look["color"], linewidth=2.2, alpha=0.7)
        axes.plot(100 * e.value, y, **look, markersize=8, linestyle="none")
        seeds = [100 * c.rate for c in results.of(task, arm)]
        below = [y + 0.24] * len(seeds)
        axes.plot(
            seeds,
            below,
            marker="o",
            markersize=4,
            markerfacecolor="none",
            color=look["color"],
            linestyle="none",
        )
        if arm == arms[0]:
            axes.axvline(100 * e.value, color=look["color"], linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(arms)), arms)
    axes.set(
        xlabel="success on held-out initial states, %", xlim=(-2, 102), ylim=(len(arms) - 0.4, -0.6)
    )
    _finish(
        figure, axes, path, f"{task} ({results.kind(task)}): seeds (small), mean, 95 % interval"
    )


def horizon_plot(path: Path, results: Results, task: str, style: Style) -> None:
    """Success against the number of sub-goals K, where the models were evaluated at several.

    Else the share of evaluation episodes that completed at least k sub-goals, per arm, over seeds.
    """
    if results.lengths(task):
        _length_plot(path, results, task, style)
    else:
        _stage_plot(path, results, task, style)


def _length_plot(path: Path, results: Results, task: str, style: Style) -> None:
    """One line per arm, its 95 % interval as a band and bars; arms are a little apart in K."""
    arms, lengths, own = results.arms, results.lengths(task), results.goals(task)
    arms = [a for a in arms if any(c.lengths for c in results.of(task, a))]
    figure, axes = _figure(8.2, 4.8)
    axes.axvline(own, color="#bbbbbb", linewidth=0.8, linestyle=":")
    for i, arm in enumerate(arms):
        shift = min(0.06, 0.4 / len(arms)) * (i - (len(arms) - 1) / 2)
        known = [(k, e) for k in lengths if (e := results.at_length(task, arm, k)) is not None]
        x = np.array([k + shift for k, _ in known])
        low, value, high = (
            100 * np.array([getattr(e, n) for _, e in known]) for n in ("low", "value", "high")
        )
        axes.fill_between(x, low, high, color=style[arm]["color"], alpha=0.10, linewidth=0)
        bars = np.maximum([value - low, high - value], 0)
        look = {**style[arm], "markersize": 5.5, "linewidth": 1.4, "elinewidth": 0.9, "label": arm}
        axes.errorbar(x, value, bars, **look)
    axes.set_xticks(lengths, [f"{k}\n(trained)" if k == own else f"{k}" for k in lengths])
    x_label, y_label = "sub-goals K of the task", "success, deployed sampler, %"
    axes.set(
        xlabel=x_label, ylabel=y_label, ylim=(-2, 102), xlim=(lengths[0] - 0.4, lengths[-1] + 0.4)
    )
    _legend(axes)
    title = f"{task} ({results.kind(task)}): the same models on K sub-goals, 95 % intervals"
    _finish(figure, axes, path, title)


def _stage_plot(path: Path, results: Results, task: str, style: Style) -> None:
    arms, goals = [a for a in results.arms if results.of(task, a)], results.goals(task)
    figure, axes = _figure(8.2, 4.4)
    for i, arm in enumerate(arms):
        # side by side, so that intervals can be told apart
        shift = 0.5 * (i / max(1, len(arms) - 1) - 0.5)
        x = np.arange(1, goals + 1) + shift
        e = [results.rate(task, arm, k) for k in range(1, goals + 1)]
        value = np.array([100 * v.value for v in e])
        bars = [value - [100 * v.low for v in e], [100 * v.high for v in e] - value]
        look = {**style[arm], "markersize": 5.5, "linewidth": 1.2, "elinewidth": 1.0, "label": arm}
        axes.errorbar(x, value, np.maximum(bars, 0), **look)
    axes.set_xticks(range(1, goals + 1))
    axes.set(
        xlabel="sub-goals k",
        ylabel="episodes with at least k, %",
        ylim=(-2, 102),
        xlim=(0.5, goals + 0.5),
    )
    _legend(axes)
    _finish(
        figure, axes, path, f"{task} ({results.kind(task)}): how far episodes get, 95 % intervals"
    )


def learning_plot(path: Path, results: Results, task: str, style: Style) -> None:
    """Success over what an arm has learned from: mean over seeds, band: their range.

    Where runs were evaluated while they trained: on held-out states, over episodes. Else:
    exploring, on training states never tried before, over control steps.
    """
    figure, axes = _figure(8.2, 4.4)
    cells = [cell for arm in results.arms for cell in results.of(task, arm)]
    during = any(len(cell.evaluated) > 2 for cell in cells)  # two are before and after
    for arm in results.arms:
        found = [c.evaluated if during else c.curve for c in results.of(task, arm)]
        curves = [np.array(points) for points in found if points]
        if not curves:
            continue
        low, high = max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves)
        if len(curves) == 1 or low >= high:
            x, y = curves[0].T
            y = y[None]
        else:  # seeds took different numbers of steps per iteration: compare where all have been
            x = np.linspace(low, high, max(map(len, curves)))
            y = np.stack([np.interp(x, *c.T) for c in curves])
        axes.plot(x, 100 * y.mean(0), **style[arm], markersize=4, linewidth=1.4, label=arm)
        axes.fill_between(
            x, 100 * y.min(0), 100 * y.max(0), color=style[arm]["color"], alpha=0.10, linewidth=0
        )
    x_label = "online episodes so far" if during else "control steps learned from so far"
    y_label = "success, deployed sampler, %" if during else "success, exploring, %"
    axes.set(xlabel=x_label, ylabel=y_label, ylim=(-2, 102))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g}k" if v >= 1000 else f"{v:g}")
    if axes.lines:
        _legend(axes)
    states = "held-out" if during else "fresh training"
    title = f"{task} ({results.kind(task)}): {states} states; mean and range of seeds"
    _finish(figure, axes, path, title)


def _figure(width: float, height: float):
    # slow to import, and needs no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _legend(axes) -> None:
    """Beside the axes: a dozen arms would cover the lines."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def _finish(figure, axes, path: Path, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")
