"""Intervals over seeds *and* initial states, robust averages over tasks, several tests at once.

Data is nested: tasks -> seeds (one trained model each) -> initial states. `values[t][s]` is an
array (E,) with one number per initial state, e.g. success (0 or 1) or, for a paired comparison of
two arms on the same states, its difference (-1, 0, 1).

- `hierarchical`: mean over tasks of the mean over seeds of the mean over states. Its interval is
  the hierarchical bootstrap's: seeds are drawn with replacement within each task, then states
  within each drawn seed; percentiles. (SciPy's `bootstrap` draws on one level only.)
  Tasks are fixed: nothing is said about tasks that were not run. **With 3 seeds an interval is only
  as good as 3 seeds can be**: the bootstrap sees the spread of those three and no other, which
  understates the spread of seeds by a third in variance; drawing states again within seeds counts
  their noise twice and works the other way. The same states serve all seeds, which resampling
  within seeds ignores.
- `iqm`: interquartile mean of one score per (task, seed), with the stratified bootstrap of rliable
  (Agarwal et al., "Deep RL at the edge of the statistical precipice", 2021): seeds are drawn within
  each task. Not rliable itself: it fails with pandas 3.
- `holm`: the correction of p-values for testing several arms at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from wamrl.stats import CONFIDENCE

RESAMPLES = 10_000
Nested = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, and what it was made of."""

    value: float
    low: float
    high: float
    tasks: int
    seeds: int  # of the task that has fewest
    episodes: int  # pairs, for a difference
    method: Literal["bootstrap", "exact"]  # "exact": no spread in the data, see `hierarchical`


def hierarchical(
    values: Nested, *, bounds: tuple[float, float], resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean and interval of nested data.

    bounds: what a value can be, (0, 1) for rates and (-1, 1) for their differences.

    Where all values are equal a bootstrap collapses to a point. Then the interval is exact instead:
    by the binomial test at most a share u of states can differ from what was seen in n (u = 0.12 at
    n = 30), and they may differ by as much as the bounds allow.

    ValueError where a task has no seed or a seed no value.
    """
    sizes = [[len(states) for states in seeds] for seeds in values]
    if not sizes or not all(task and all(task) for task in sizes):
        raise ValueError(
            "there is a task without seeds or a seed without episodes: "
            "finish the study's cells first"
        )
    parts = [[np.asarray(x, float) for x in seeds] for seeds in values]
    value = float(np.mean([np.mean([x.mean() for x in seeds]) for seeds in parts]))
    every = np.concatenate([x for seeds in parts for x in seeds])
    if (every == every[0]).all():
        share = scipy.stats.binomtest(0, len(every)).proportion_ci(CONFIDENCE, method="exact").high
        low = value - share * (value - bounds[0])
        high = value + share * (bounds[1] - value)
        method = "exact"
    else:
        rng = np.random.default_rng(seed)
        tasks = [_resampled_task(seeds, resamples, rng) for seeds in parts]
        low, high = _percentiles(np.mean(tasks, axis=0))
        method = "bootstrap"
    return Estimate(
        value=value,
        low=float(low),
        high=float(high),
        tasks=len(parts),
        seeds=min(map(len, parts)),
        episodes=len(every),
        method=method,
    )


def _resampled_task(
    seeds: list[np.ndarray], resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """(R,): means over drawn seeds of means over drawn states."""
    drawn = rng.integers(len(seeds), size=(resamples, len(seeds)))
    means = np.empty(drawn.shape)
    for i, states in enumerate(seeds):
        # E draws of E states are multinomial counts of their distinct values:
        # the same thing, and small.
        distinct, counts = np.unique(states, return_counts=True)
        here = drawn == i
        picked = rng.multinomial(len(states), counts / len(states), size=int(here.sum()))
        means[here] = picked @ distinct / len(states)
    return means.mean(1)


def iqm(scores: Sequence[np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Interquartile mean over all tasks of `scores[t]` (S_t,), one per seed.

    The lowest and the highest quarter of all scores are dropped, the rest is averaged. ValueError
    where a task has no score.
    """
    if not scores or any(not len(s) for s in scores):
        raise ValueError("there is a task without a score: finish the study's cells first")
    parts = [np.asarray(s, float) for s in scores]
    rng = np.random.default_rng(seed)
    # SciPy's `bootstrap` would do the same, but refuses a task with a single seed.
    draws = [s[rng.integers(len(s), size=(resamples, len(s)))] for s in parts]
    low, high = _percentiles(scipy.stats.trim_mean(np.concatenate(draws, axis=1), 0.25, axis=1))
    every = np.concatenate(parts)
    return Estimate(
        value=float(scipy.stats.trim_mean(every, 0.25)),
        low=low,
        high=high,
        tasks=len(parts),
        seeds=min(map(len, parts)),
        episodes=0,
        method="bootstrap",
    )


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95 %."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given.

    The k-th smallest of m p-values is multiplied by m - k + 1; never below the one before, at
    most 1. (SciPy corrects for false discoveries only.)
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    out = np.empty(len(p))
    out[order] = adjusted
    return out.tolist()
