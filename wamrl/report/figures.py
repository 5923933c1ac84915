"""What the diagnostics found, as pictures: the course of a run,
and one set of rollouts under several rewards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# distinguishable without red-green vision
WON, LOST, BLUE, GREY = "#009e73", "#d55e00", "#0072b2", "#888888"


def diagnostics_figure(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    scores: Mapping[str, np.ndarray],
    success: np.ndarray,
    *,
    title: str = "",
) -> None:
    """A PNG of the online loop so far.

    rows: lines of metrics.jsonl (others than the diagnosed iterations are left out); scores:
    episode scores (n,) of the last iteration per reward, with success bool (n,). ValueError if no
    iteration was diagnosed.
    """
    rows = [r for r in rows if r.get("diag/mean/reconstruction") is not None]
    if not rows:
        raise ValueError(
            "no iteration was diagnosed: run at least one with train.diagnostics.enabled"
        )
    figure = _figure((15.5, 7.2))
    panels = figure.subplots(2, 4).ravel()
    _auc(panels[0], rows)
    _hack(panels[1], rows)
    pair = {"executed": "C0", "imagined": "C1"}
    _lines(
        panels[2],
        rows,
        {f"diag/motion/{k}": (k, c) for k, c in pair.items()},
        "motion energy (MSE to last frame)",
    )
    _lines(
        panels[3],
        rows,
        {f"diag/sharpness/{k}": (k, c) for k, c in pair.items()},
        "sharpness (Laplacian variance)",
    )
    _lines(
        panels[4], rows, _family(rows, "world/copy_ratio/", "+"), "imagination error / copy error"
    )
    panels[4].axhline(1, color=GREY, linewidth=1, linestyle=":")
    _lines(panels[5], rows, _family(rows, "diag/drift/"), "feature drift |z - z₀|² / var₀")
    for axes in panels[:6]:
        axes.set_xlabel("iteration")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[2:6]:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    for axes, name in zip(panels[6:], ("reconstruction", "gain"), strict=True):
        histogram(axes, scores.get(name, np.zeros(0)), success, f"{name}, last iteration")
    figure.suptitle(title)
    _save(figure, path)


def _lines(axes, rows: Sequence[Mapping], curves: dict[str, tuple[str, str]], title: str) -> None:
    """One line per metric: key -> (label, colour); an iteration without the number leaves a gap."""
    x = [r["step"] for r in rows]
    for key, (label, colour) in curves.items():
        axes.plot(
            x,
            [_number(r.get(key)) for r in rows],
            marker="o",
            markersize=3.5,
            label=label,
            color=colour,
        )
    _dress(axes, title)
    if curves:
        axes.legend(frameon=False, fontsize=8)


def _auc(axes, rows: Sequence[Mapping]) -> None:
    for name, colour, shift in (("reconstruction", BLUE, -0.05), ("gain", "#cc79a7", 0.05)):
        x = [r["step"] + shift for r in rows]
        for window, style in (("", "-"), ("_early", "--")):
            y = [_number(r.get(f"diag/auc{window}/{name}")) for r in rows]
            label = name + (" (early chunks)" if window else "")
            axes.plot(
                x, y, style, marker="" if window else "o", markersize=3.5, color=colour, label=label
            )
        low, high = (
            [_number(r.get(f"diag/auc_{end}/{name}")) for r in rows] for end in ("low", "high")
        )
        axes.vlines(x, low, high, color=colour, alpha=0.35, linewidth=3)
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
    _dress(axes, "AUC for success, bars: 95 %")
    axes.set(ylim=(0, 1.22), yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.legend(frameon=False, fontsize=7, loc="upper center", ncols=2, handlelength=3)


def _hack(axes, rows: Sequence[Mapping]) -> None:
    """Reconstruction (left) against success (right), iterations with an alarm marked."""
    x = [r["step"] for r in rows]
    (left,) = axes.plot(
        x,
        [_number(r.get("diag/mean/reconstruction")) for r in rows],
        marker="o",
        color=BLUE,
        ms=3.5,
    )
    other = axes.twinx()
    fresh = "rollout/success_fresh"
    kind = fresh if any(r.get(fresh) is not None for r in rows) else "rollout/success"
    (right,) = other.plot(
        x, [100 * _number(r.get(kind)) for r in rows], marker="s", color=WON, ms=3.5
    )
    other.set_ylim(0, 100)
    lines = [left, right]
    names = ["reconstruction (left)", "success, % (right)"]
    for i, r in enumerate(r for r in rows if r.get("diag/alarm")):
        mark = axes.axvline(r["step"], color="red", alpha=0.5)
        if i == 0:
            lines.append(mark)
            names.append("alarm")
    _dress(axes, "is the reward being gamed?")
    other.spines["top"].set_visible(False)
    axes.legend(lines, names, frameon=False, fontsize=8)


def _family(rows: Sequence[Mapping], prefix: str, sign: str = "") -> dict[str, tuple[str, str]]:
    names = [k for k in dict.fromkeys(k for r in rows for k in r) if k.startswith(prefix)]
    return {k: (sign + k.removeprefix(prefix), f"C{i}") for i, k in enumerate(names)}


def histogram(axes, score: np.ndarray, success: np.ndarray, title: str) -> None:
    """Episode scores by outcome, each as a share of its outcome;
    the outer 1 % are drawn at the edge.
    """
    _dress(axes, title)
    if not len(score):
        axes.text(0.5, 0.5, "no scored episode", ha="center", transform=axes.transAxes)
        return
    low, high = np.quantile(score, [0.01, 0.99])
    edges = np.linspace(low, high, 21) if high > low else np.linspace(low - 0.5, low + 0.5, 21)
    for part, colour, name in (
        (score[success], WON, "success"),
        (score[~success], LOST, "failure"),
    ):
        if len(part):
            share = np.full(len(part), 100 / len(part))
            inside = np.clip(part, edges[0], edges[-1])
            axes.hist(
                inside, edges, weights=share, color=colour, alpha=0.5, label=f"{name} ({len(part)})"
            )
    axes.set(xlabel="mean raw reward of an episode", ylabel="episodes, %")
    axes.ticklabel_format(axis="x", scilimits=(-2, 3))
    axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.legend(frameon=False, fontsize=8)


def rewards_figure(
    path: Path,
    scores: Mapping[tuple[str, str], np.ndarray],
    aucs: Mapping[tuple[str, str], float],
    success: np.ndarray,
    *,
    title: str = "",
) -> None:
    """A PNG: per reward (row) the histograms of its variants by outcome, and their ROC curves.

    scores: (reward, variant) -> episode scores (E,), NaN where an episode has none; aucs: the same
    keys, for the legend; success: bool (E,).
    """
    names, variants = (list(dict.fromkeys(key[i] for key in scores)) for i in (0, 1))
    figure = _figure((3.7 * (len(variants) + 1), 0.5 + 3.1 * len(names)))
    for row, name in zip(
        figure.subplots(len(names), len(variants) + 1, squeeze=False), names, strict=True
    ):
        for i, (axes, variant) in enumerate(zip(row[:-1], variants, strict=True)):
            score = scores[name, variant]
            known = ~np.isnan(score)
            histogram(axes, score[known], success[known], f"{name}: {variant}")
            if 0 < success[known].sum() < known.sum():
                false, true = roc(score[known], success[known])
                label = f"{variant}: {aucs[name, variant]:.2f}"
                row[-1].plot(false, true, color=f"C{i}", label=label, linewidth=1.5)
        row[-1].plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        _dress(row[-1], f"{name}: ROC")
        row[-1].set(xlabel="failures above the threshold", ylabel="successes above", aspect="equal")
        if row[-1].get_legend_handles_labels()[0]:
            row[-1].legend(
                title="AUC", framealpha=0.8, edgecolor="none", fontsize=8, loc="lower right"
            )
    figure.suptitle(title)
    _save(figure, path)


def roc(score: np.ndarray, success: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1),
    one point per distinct score; the area is the AUC.
    """
    values, index = np.unique(-np.asarray(score, float), return_inverse=True)
    counts = [
        np.bincount(index[part], minlength=len(values)).cumsum() for part in (~success, success)
    ]
    false, true = (np.concatenate([[0], c / c[-1]]) for c in counts)
    return false, true


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _figure(size: tuple[float, float]):
    # slow to import, and needs no display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure, path: Path) -> None:
    draft = Path(path).with_suffix(".tmp")
    figure.savefig(draft, format="png")
    draft.replace(path)
