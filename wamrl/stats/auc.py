"""Does a score tell success from failure? The area under the ROC curve, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from wamrl.stats import CONFIDENCE

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class AUC:
    """Chance that a success scores above a failure, ties count half; NaN without both outcomes."""

    value: float
    low: float  # 95 % interval
    high: float
    successes: int
    failures: int


def auc(score: np.ndarray, success: np.ndarray, cluster: np.ndarray | None = None) -> AUC:
    """AUC = U / (m n) of `score` (E,) for `success` (E,): m successes against n failures.

    Episodes with score NaN are left out. Interval: Newcombe's score method 5 (Stat. Med. 25, 2006),
    the theta with
        (AUC - theta)^2 = z^2 V(theta),
        V = theta (1 - theta) [1 + N (1 - theta) / (2 - theta) + N theta / (1 + theta)] / (m n),
        N = (m + n) / 2 - 1,
    which stays sound at AUC 0 and 1, where DeLong and the bootstrap collapse to a point.

    cluster: (E,); episodes with the same value (initial state) are not independent. m and n are
    then divided by the design effect: the variance for clustered data (Obuchowski, Biometrics 53,
    1997) over DeLong's, at least 1. That combination is ours.
    """
    score = np.asarray(score, np.float64)
    success = np.asarray(success, bool)
    cluster = np.arange(len(score)) if cluster is None else np.asarray(cluster)
    known = ~np.isnan(score)
    score = score[known]
    success = success[known]
    cluster = cluster[known]
    m = int(success.sum())
    n = len(success) - m
    if not m or not n:
        return AUC(value=math.nan, low=math.nan, high=math.nan, successes=m, failures=n)
    won, lost = _wins(score, success)
    value = float(won.sum() / (m * n))
    effect = _design_effect(won / n, lost / m, cluster[success], cluster[~success])
    low, high = _newcombe(value, max(1.0, m / effect), max(1.0, n / effect))
    return AUC(value=value, low=low, high=high, successes=m, failures=n)


def _wins(score: np.ndarray, success: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The failures below each success (m,), and the successes above each failure (n,).

    By ranks (Sun and Xu, IEEE SPL 21, 2014), ties count half. Both sum to Mann and Whitney's U.
    """
    ranks = scipy.stats.rankdata(score)
    won = ranks[success] - scipy.stats.rankdata(score[success])
    # the successes below each failure
    below = ranks[~success] - scipy.stats.rankdata(score[~success])
    return won, success.sum() - below


def _newcombe(value: float, m: float, n: float) -> tuple[float, float]:
    z = scipy.stats.norm.ppf(0.5 + CONFIDENCE / 2)
    extra = (m + n) / 2 - 1

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + extra * (1 - t) / (2 - t) + extra * t / (1 + t)) / (m * n)
        return (value - t) ** 2 - z**2 * variance

    edge = 1e-9  # V is 0 at 0 and at 1, which would be a second root for value 0 or 1
    low = 0.0 if value <= edge else scipy.optimize.brentq(excess, 0.0, value - edge)
    high = 1.0 if value >= 1 - edge else scipy.optimize.brentq(excess, value + edge, 1.0)
    return float(low), float(high)


def _design_effect(
    won: np.ndarray, lost: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> float:
    """Variance of the AUC with clusters over that without, at least 1.

    won, lost: share of the failures below each success (m,), of the successes above each failure
    (n,). positive, negative: their clusters. Where the variances are 0 (perfect separation): the
    mean number of episodes per cluster, so that each cluster counts once.
    """
    m = len(won)
    n = len(lost)
    names, index = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    clusters = len(names)
    if clusters == m + n:
        return 1.0
    a = won - won.mean()
    b = lost - won.mean()
    plain = (a @ a / max(m - 1, 1)) / m + (b @ b / max(n - 1, 1)) / n
    if plain < 1e-12 or clusters < 2:
        return (m + n) / clusters
    sums_a = np.bincount(index[:m], a, clusters)
    sums_b = np.bincount(index[m:], b, clusters)
    own = _between(sums_a, len(np.unique(positive)), m)
    own += _between(sums_b, len(np.unique(negative)), n)
    both = 2 * (sums_a @ sums_b) * clusters / (clusters - 1) / (m * n)
    return max(1.0, float((own + both) / plain))


def _between(sums: np.ndarray, clusters: int, episodes: int) -> float:
    """Variance of a mean over `episodes` from the sums of its clusters."""
    return (sums @ sums) * clusters / max(clusters - 1, 1) / episodes**2


@dataclass(frozen=True, kw_only=True)
class Within:
    """AUC over pairs of one initial state only, so that easy and hard states cannot explain it."""

    value: float
    low: float  # 95 % interval
    high: float
    groups: int  # initial states with both outcomes


def within_groups(score: np.ndarray, success: np.ndarray, group: np.ndarray) -> Within:
    """Won pairs / pairs, over pairs of a success and a failure in the same group, all (E,).

    2 value - 1 is Somers' D. Interval: percentile bootstrap over groups, 2,000 resamples, fixed
    seed; NaN for fewer than two mixed groups.
    """
    score = np.asarray(score, np.float64)
    success = np.asarray(success, bool)
    group = np.asarray(group)
    won = []
    pairs = []
    for name in np.unique(group[~np.isnan(score)]):
        mine = (group == name) & ~np.isnan(score)
        successes = int(success[mine].sum())
        failures = int(mine.sum()) - successes
        if successes and failures:
            won.append(_wins(score[mine], success[mine])[0].sum())
            pairs.append(successes * failures)
    if not pairs:
        return Within(value=math.nan, low=math.nan, high=math.nan, groups=0)
    value = float(np.sum(won) / np.sum(pairs))
    if len(pairs) == 1:
        return Within(value=value, low=math.nan, high=math.nan, groups=1)
    ends = scipy.stats.bootstrap(
        (np.array(won), np.array(pairs, float)),
        lambda w, p, axis: w.sum(axis) / p.sum(axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Within(value=value, low=float(ends.low), high=float(ends.high), groups=len(pairs))


def roc(score: np.ndarray, success: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, from (0, 0) to (1, 1), one point per distinct score.

    score, success: (E,), with both outcomes. The area under the curve is the AUC.
    """
    turned = -np.asarray(score, float)
    thresholds = np.unique(turned)
    rates = []
    for part in (~success, success):
        reached = scipy.stats.ecdf(turned[part]).cdf.evaluate(thresholds)
        rates.append(np.concatenate([[0], reached]))
    false, true = rates
    return false, true
