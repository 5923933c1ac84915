"""The two trend tests, against SciPy and permutations."""

import numpy as np
import pytest
from scipy.stats import linregress, norm

from wamrl.stats.trend import chance_of_fall, chance_of_rise


def test_chance_of_rise_is_scipys_slope_test():
    values = [0.1, 0.3, 0.2, 0.5, 0.6]
    assert (
        chance_of_rise(values) == linregress(range(5), values, alternative="greater").pvalue < 0.05
    )
    assert chance_of_rise(values[::-1]) > 0.95 and chance_of_rise([1.0] * 5) == 1


def test_chance_of_fall_matches_two_proportions_and_permutations():
    """For two points the trend test is the pooled two-proportion z-test;
    for more, a permutation test agrees.
    """

    pooled = (30 + 18) / 100
    z = (18 / 50 - 30 / 50) / np.sqrt(pooled * (1 - pooled) * (2 / 50))
    assert chance_of_fall([0.6, 0.36], [50, 50]) == pytest.approx(norm.cdf(z))
    rng = np.random.default_rng(0)
    wins, n = np.array([22, 19, 21, 14]), 40
    t = np.repeat(np.arange(4), n)
    outcome = np.concatenate([np.arange(n) < w for w in wins])
    seen = (outcome * t).sum()
    resampled = np.array([(rng.permutation(outcome) * t).sum() for _ in range(4000)])
    exact = ((resampled < seen).mean() + (resampled <= seen).mean()) / 2
    assert chance_of_fall((wins / n).tolist(), [n] * 4) == pytest.approx(exact, abs=0.02)
    assert chance_of_fall([1.0, 1.0], [5, 5]) == chance_of_fall([0.0, 0.0], [5, 5]) == 1
