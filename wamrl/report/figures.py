"""The figures of a run: its learning curve, what was watched in training, rewards compared."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wamrl.report.curves import Point
from wamrl.report.style import (
    BAND,
    BLUE,
    GREEN,
    GUIDE,
    PER_CENT,
    PINK,
    RED,
    THIN,
    count_axis,
    legend_below,
    new_figure,
    saved_figure,
)
from wamrl.stats.auc import roc
from wamrl.stats.paired import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl
Curves = Mapping[str, Sequence[Point]]  # by the names that the legend shows

LEARNING_CURVE = (7, 4.8)  # inches

WON = GREEN
LOST = RED
DASHES = ((0, (1, 1)), (0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)))


# --- the learning curve


def learning_curve(path: Path, curves: Curves, **options: Any) -> None:
    """A PNG of `learning_curve_figure`, which says what the options are."""
    drawn = _with_episodes(curves)
    with saved_figure(path, *LEARNING_CURVE) as figure:
        _learning_curve(figure, drawn, **options)


def learning_curve_figure(curves: Curves, **options: Any) -> Figure:
    """Success (%) over x, one line per named curve, with its Wilson 95 % band.

    thin: names of curves that are drawn thin and without a band. title, x_label: texts. Points
    without episodes are left out. ValueError if nothing is left to draw.
    """
    drawn = _with_episodes(curves)
    with new_figure(*LEARNING_CURVE) as figure:
        _learning_curve(figure, drawn, **options)
    return figure


def _with_episodes(curves: Curves) -> dict[str, list[Point]]:
    drawn = {name: [p for p in points if p.episodes] for name, points in curves.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn:
        raise ValueError(
            "there is no episode to draw a learning curve of: run at least one iteration"
        )
    return drawn


def _learning_curve(
    figure: Figure,
    drawn: Curves,
    *,
    thin: Collection[str] = (),
    title: str = "",
    x_label: str = "iteration",
) -> None:
    axes = figure.add_subplot()
    dashes = cycle(DASHES)
    for name, points in drawn.items():
        if name in thin:
            x, rates, _ = _success(points)
            axes.plot(x, rates, linestyle=next(dashes), label=name, **THIN)
        else:
            _banded(axes, name, points)
    axes.set(xlabel=x_label, ylabel="success, %", ylim=PER_CENT, title=title)
    count_axis(axes)
    figure.legend(title="bands: Wilson 95 %", loc="outside lower center", ncols=2)


def _success(points: Sequence[Point]) -> tuple[list[float], list[float], np.ndarray]:
    """x, success in per cent, and its interval (2, points)."""
    x = [p.x for p in points]
    rates = [100 * p.successes / p.episodes for p in points]
    intervals = [wilson(p.successes, p.episodes) for p in points]
    return x, rates, 100 * np.array(intervals).T


def _banded(axes: Axes, name: str, points: Sequence[Point]) -> None:
    x, rates, (low, high) = _success(points)
    (line,) = axes.plot(x, rates, marker="o", label=name)
    axes.fill_between(x, low, high, color=line.get_color(), alpha=BAND, linewidth=0)
    if len(points) == 1:  # a band of no width cannot be seen
        axes.vlines(x, low, high, color=line.get_color(), alpha=0.5)


# --- the diagnostics of a run


def diagnostics_figure(
    path: Path,
    rows: Rows,
    scores: Mapping[str, np.ndarray],
    success: np.ndarray,
    *,
    title: str = "",
) -> None:
    """A PNG of what the diagnostics found in the online iterations so far.

    rows: lines of metrics.jsonl, of which those of diagnosed iterations are drawn. scores: episode
    scores (n,) of the last iteration per reward, with success bool (n,). ValueError if no iteration
    was diagnosed.
    """
    rows = [r for r in rows if r.get("diag/mean/reconstruction") is not None]
    if not rows:
        raise ValueError(
            "no iteration was diagnosed: run at least one with train.diagnostics.enabled"
        )
    with saved_figure(path, 9.5, 14.5) as figure:
        panels = iter(figure.subplots(4, 2).ravel())
        _auc_panel(next(panels), rows)
        _gaming_panel(next(panels), rows)
        both = {"executed": BLUE, "imagined": RED}
        units = {"motion": "MSE to the last frame", "sharpness": "variance of the Laplacian"}
        for name, unit in units.items():
            curves = {f"diag/{name}/{part}": (part, colour) for part, colour in both.items()}
            _lines_panel(next(panels), rows, curves, f"{name} of the frames", unit)
        axes = next(panels)
        axes.axhline(1, **GUIDE)
        curves = _family(rows, "world/copy_ratio/", "+")
        _lines_panel(axes, rows, curves, "error of the imagination", "error / error of a copy")
        curves = _family(rows, "diag/drift/")
        _lines_panel(next(panels), rows, curves, "drift of the features", "|z - z₀|² / var₀")
        for name in ("reconstruction", "gain"):
            axes = next(panels)
            histogram(axes, scores.get(name, np.zeros(0)), success, f"{name}, last iteration")
        figure.suptitle(title)


def _series(rows: Rows, key: str) -> list[float]:
    """NaN, which leaves a gap, in iterations without the number."""
    return [math.nan if r.get(key) is None else float(r[key]) for r in rows]


def _lines_panel(
    axes: Axes, rows: Rows, curves: Mapping[str, tuple[str, str | None]], title: str, unit: str
) -> None:
    """One line per metric, from zero up: key -> (label, colour or None for the next one)."""
    x = _series(rows, "step")
    for key, (label, colour) in curves.items():
        axes.plot(x, _series(rows, key), marker="o", label=label, color=colour)
    axes.set(title=title, xlabel="iteration", ylabel=unit)
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    count_axis(axes)
    legend_below(axes, columns=4)


def _family(rows: Rows, prefix: str, sign: str = "") -> dict[str, tuple[str, None]]:
    """All metrics whose names begin so, for `_lines_panel`; the rest of the name is the label."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    return {key: (sign + key.removeprefix(prefix), None) for key in keys}


def _auc_panel(axes: Axes, rows: Rows) -> None:
    steps = np.array(_series(rows, "step"))
    for name, colour, shift in (("reconstruction", BLUE, -0.06), ("gain", PINK, 0.06)):
        x = steps + shift
        whole = _series(rows, f"diag/auc/{name}")
        early = _series(rows, f"diag/auc_early/{name}")
        low = _series(rows, f"diag/auc_low/{name}")
        high = _series(rows, f"diag/auc_high/{name}")
        axes.plot(x, whole, marker="o", color=colour, label=name)
        axes.plot(x, early, "--", color=colour, label=f"{name} (early chunks)")
        axes.vlines(x, low, high, color=colour, alpha=0.35, linewidth=3)
    axes.axhline(0.5, **GUIDE)
    names = ("diag/auc/reconstruction", "diag/auc/gain")
    if all(row.get(name) is None for row in rows for name in names):
        axes.text(0.5, 0.6, "no iteration had both outcomes", ha="center", transform=axes.transAxes)
    axes.set(title="does the reward tell success from failure?", xlabel="iteration")
    # of its own, for where there is nothing to draw
    axes.set(ylabel="AUC, bars: 95 %", ylim=(0, 1.02), xlim=(steps.min() - 0.5, steps.max() + 0.5))
    count_axis(axes)
    legend_below(axes)


def _gaming_panel(axes: Axes, rows: Rows) -> None:
    """Reconstruction (left) against success (right), iterations with an alarm marked."""
    x = _series(rows, "step")
    axes.plot(
        x, _series(rows, "diag/mean/reconstruction"), marker="o", color=BLUE, label="reconstruction"
    )
    fresh = "rollout/success_fresh"
    key = fresh if any(r.get(fresh) is not None for r in rows) else "rollout/success"
    other = axes.twinx()
    success = 100 * np.array(_series(rows, key))
    (right,) = other.plot(x, success, marker="s", color=WON)
    other.spines["right"].set_visible(True)
    other.grid(False)
    other.set(ylim=PER_CENT, ylabel="success, %")
    alarms = [r["step"] for r in rows if r.get("diag/alarm")]
    for i, step in enumerate(alarms):
        axes.axvline(step, color="red", alpha=0.5, label="" if i else "alarm")
    axes.set(title="is the reward being gamed?", xlabel="iteration")
    axes.set(ylabel="mean reconstruction (raw reward)")
    count_axis(axes)
    handles, labels = axes.get_legend_handles_labels()
    legend_below(axes, columns=3, handles=[*handles, right], labels=[*labels, "success (right)"])


def histogram(axes: Axes, score: np.ndarray, success: np.ndarray, title: str) -> None:
    """Episode scores by outcome, each as a share of its outcome.

    score: (E,); success: bool (E,). What lies outside the middle 98 % is drawn at the edge.
    """
    axes.set_title(title)
    if not len(score):
        axes.text(0.5, 0.5, "no scored episode", ha="center", transform=axes.transAxes)
        return
    low, high = np.quantile(score, [0.01, 0.99])
    if low == high:
        low -= 0.5
        high += 0.5
    edges = np.linspace(low, high, 21)
    for name, part, colour in (
        ("success", score[success], WON),
        ("failure", score[~success], LOST),
    ):
        if len(part):
            share = np.full(len(part), 100 / len(part))
            look = {"color": colour, "alpha": 0.5, "label": f"{name} ({len(part)})"}
            axes.hist(np.clip(part, low, high), edges, weights=share, **look)
    axes.set(xlabel="mean raw reward", ylabel="episodes, %")
    axes.ticklabel_format(axis="x", scilimits=(-2, 3))
    axes.xaxis.get_major_locator().set_params(nbins=5)
    legend_below(axes)


# --- rewards compared


def rewards_figure(
    path: Path,
    scores: Mapping[tuple[str, str], np.ndarray],
    aucs: Mapping[tuple[str, str], float],
    success: np.ndarray,
    *,
    title: str = "",
) -> None:
    """A PNG: per reward (row) the histograms of its variants by outcome, and their ROC curves.

    scores: (reward, variant) -> episode scores (E,), NaN where an episode has none. aucs: the same
    keys, for the legend. success: bool (E,).
    """
    names = list(dict.fromkeys(name for name, _ in scores))
    variants = list(dict.fromkeys(variant for _, variant in scores))
    columns = len(variants) + 1
    with saved_figure(path, 3.5 * columns, 0.5 + 3.8 * len(names)) as figure:
        panels = figure.subplots(len(names), columns, squeeze=False)
        for row, name in zip(panels, names, strict=True):
            curves = row[-1]
            for axes, variant in zip(row[:-1], variants, strict=True):
                score = scores[name, variant]
                known = ~np.isnan(score)
                histogram(axes, score[known], success[known], f"{name}: {variant}")
                if 0 < success[known].sum() < known.sum():
                    false, true = roc(score[known], success[known])
                    curves.plot(false, true, label=f"{variant}: {aucs[name, variant]:.2f}")
            curves.plot([0, 1], [0, 1], **GUIDE)
            curves.set(xlabel="share of failures above", ylabel="share of successes above")
            curves.set(title=f"{name}: ROC", aspect="equal")
            legend_below(curves, columns=1, title="AUC")
        figure.suptitle(title)
