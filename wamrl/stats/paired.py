"""One success rate, and the difference of two on the same initial states."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from wamrl.stats import CONFIDENCE

RESAMPLES = 9999


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate, both ends in [0, 1].

    (0, 1) for n = 0, where nothing is known. ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} episodes is not possible: check the counts")
    if n == 0:
        return 0.0, 1.0
    share = scipy.stats.binomtest(int(successes), int(n))
    low, high = share.proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def mcnemar(change: np.ndarray) -> float:
    """McNemar's exact two-sided p-value of paired differences, (E,) in {-1, 0, 1}.

    The chance that a fair coin splits the pairs that changed at least as unevenly as
    gained : lost; 1 where none changed. It takes the pairs as independent, so it speaks of the
    models at hand; `nested.hierarchical` speaks also of other seeds.
    """
    gained = int((change > 0).sum())
    lost = int((change < 0).sum())
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """after - before on the same initial states; rates, so 0.1 means ten points."""

    episodes: int
    before: float
    after: float
    difference: float
    low: float  # 95 % interval of the difference, bootstrap over pairs
    high: float
    # "percentile" where BCa is undefined; "degenerate": see `paired_difference`
    method: Literal["BCa", "percentile", "degenerate"]
    gained: int  # failed before, solved after
    lost: int  # solved before, failed after
    p_value: float  # `mcnemar`

    @property
    def points(self) -> str:
        """In points with the 95 % interval, "+39.0 [+32.5, +46.0]"; without where there is none."""
        ends = f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.difference:+.1f}{'' if self.method == 'degenerate' else ends}"


def paired_difference(
    before: np.ndarray, after: np.ndarray, seed: int = 0, strata: np.ndarray | None = None
) -> Paired:
    """Compare the success, bool (E,), of two models on the same E initial states in one order.

    strata: int (E,), the task of each state; pairs are then resampled within their task, so that
    every resample has the tasks in the same shares (percentiles of the mean over all pairs).

    Interval: bootstrap over pairs, 9,999 resamples drawn with `seed`. If all pairs changed alike, a
    bootstrap knows no other outcome and collapses to a point: the method is "degenerate" then, and
    the p-value is what to read. ValueError unless there are as many of one as of the other.
    """
    before = np.asarray(before, bool).ravel()
    after = np.asarray(after, bool).ravel()
    if len(before) != len(after) or not len(before):
        raise ValueError(
            f"{len(before)} and {len(after)} episodes are no pairs: "
            "evaluate both models on the same initial states"
        )
    change = after.astype(float) - before
    low, high, method = _interval(change, seed, strata)
    return Paired(
        episodes=len(change),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float(change.mean()),
        low=low,
        high=high,
        method=method,
        gained=int((change > 0).sum()),
        lost=int((change < 0).sum()),
        p_value=mcnemar(change),
    )


def _interval(change: np.ndarray, seed: int, strata: np.ndarray | None) -> tuple[float, float, str]:
    """Of the mean: a pair resampled is its difference resampled, so one column suffices."""
    if (change == change[0]).all():
        return float(change[0]), float(change[0]), "degenerate"
    if strata is not None:
        return *_stratified(change, seed, strata), "percentile"
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy warns of degenerate data; we look at the result
            ends = scipy.stats.bootstrap(
                (change,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=1000,
                method=method,
                confidence_level=CONFIDENCE,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(ends.low) and math.isfinite(ends.high):
            return float(ends.low), float(ends.high), method
    raise AssertionError("the percentile bootstrap is always defined")


def _stratified(change: np.ndarray, seed: int, strata: np.ndarray) -> tuple[float, float]:
    """Percentiles of the mean, where pairs are drawn anew within their stratum."""
    rng = np.random.default_rng(seed)
    sums = np.zeros(RESAMPLES)
    for stratum in np.unique(strata):
        own = change[strata == stratum]
        sums += own[rng.integers(len(own), size=(RESAMPLES, len(own)))].sum(1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(sums / len(change), [tail, 100 - tail])
    return float(low), float(high)
