"""Does a series rise or fall? One-sided p-values over equally spaced points in time."""

from __future__ import annotations

import numpy as np
import scipy


def chance_of_rise(values: list[float]) -> float:
    """p-value of a rise: t-test of the least-squares slope. values: at least 3."""
    y = np.asarray(values, np.float64)
    if np.ptp(y) == 0:
        return 1.0
    return float(scipy.stats.linregress(np.arange(len(y)), y, alternative="greater").pvalue)


def chance_of_fall(rates: list[float], n: list[float]) -> float:
    """p-value of falling proportions: Cochran-Armitage trend test on `rates` of `n` trials.

    z = sum_i n_i (r_i - p)(t_i - mean t) / sqrt(p (1 - p) sum_i n_i (t_i - mean t)^2),
    p and mean t weighted by n. 1 where all trials ended alike.
    """
    rate = np.asarray(rates, np.float64)
    weight = np.asarray(n, np.float64)
    time = np.arange(len(rates))
    p = np.average(rate, weights=weight)
    if not 0 < p < 1:
        return 1.0
    centred = time - np.average(time, weights=weight)
    spread = p * (1 - p) * (weight * centred**2).sum()
    return float(scipy.stats.norm.cdf((weight * (rate - p) * centred).sum() / np.sqrt(spread)))
