"""Wilson's interval, McNemar's test and the paired bootstrap, against formulas and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from wamrl.stats.paired import mcnemar, paired_difference, wilson


def test_wilson_against_the_formula():
    for k, n in ((0, 10), (7, 10), (78, 100), (100, 100)):
        z, p = 1.959963984540054, k / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        expected = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
        assert wilson(k, n) == pytest.approx(expected, abs=1e-12)
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="11 successes in 10"):
        wilson(11, 10)


def test_paired_difference_counts_and_tests():
    before = np.array([0] * 20 + [1] * 5 + [1] * 40 + [0] * 35, bool)
    after = np.array([1] * 20 + [0] * 5 + [1] * 40 + [0] * 35, bool)
    pair = paired_difference(before, after)
    assert (pair.gained, pair.lost, pair.episodes, pair.method) == (20, 5, 100, "BCa")
    assert pair.difference == pytest.approx(0.15) == pytest.approx(pair.after - pair.before)
    assert pair.p_value == pytest.approx(2 * binom.cdf(5, 25, 0.5))
    normal = 1.96 * math.sqrt((25 / 100 - 0.15**2) / 100)
    assert (pair.low, pair.high) == pytest.approx((0.15 - normal, 0.15 + normal), abs=0.02)
    back = paired_difference(after, before)
    assert back.difference == -pair.difference and back.high < 0
    assert pair == paired_difference(before, after)  # the same resamples


def test_the_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(60):
        before = rng.random(80) < 0.5
        # true difference 0.3 * (0.8 - 0.5)
        after = np.where(rng.random(80) < 0.3, rng.random(80) < 0.8, before)
        pair = paired_difference(before, after, seed=trial)
        hits += pair.low <= 0.09 <= pair.high
    assert hits >= 51  # 57 expected, sd 1.7


def test_degenerate_and_impossible_pairs():
    for change in ((0, 0), (0, 1), (1, 0)):
        pair = paired_difference(np.full(5, change[0]), np.full(5, change[1]))
        assert (
            pair.method == "degenerate"
            and "[" not in pair.points
            and pair.low == pair.high == pair.difference == change[1] - change[0]
        )
        assert pair.p_value == (1 if change == (0, 0) else 2 / 32)
    few = paired_difference(np.zeros(3), np.array([0, 0, 1]))
    assert math.isfinite(few.low) and few.low <= few.difference <= few.high
    for before, after in (([1, 0], [1]), ([], [])):
        with pytest.raises(ValueError, match="no pairs"):
            paired_difference(np.array(before), np.array(after))


def test_mcnemar_is_a_fair_coin_over_discordant_pairs():
    change = np.array([1] * 9 + [-1] * 2 + [0] * 50)
    assert mcnemar(change) == binomtest(9, 11).pvalue == pytest.approx(0.0654, abs=1e-4)
    assert mcnemar(np.zeros(5)) == 1.0
