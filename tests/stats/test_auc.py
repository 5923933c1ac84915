"""AUC against SciPy and cases made by hand; its interval against simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from wamrl.stats.auc import auc, roc, within_groups


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auc_is_scipys_u_over_m_n_with_ties(cases):
    score, success = np.array([c[0] for c in cases], float), np.array([c[1] for c in cases])
    found = auc(score, success)
    assert (found.successes, found.failures) == (success.sum(), (~success).sum())
    if 0 < success.sum() < len(success):
        u = mannwhitneyu(score[success], score[~success]).statistic
        assert found.value == pytest.approx(u / (success.sum() * (~success).sum()), abs=1e-12)
        assert 0 <= found.low <= found.value <= found.high <= 1
        turned = auc(-score, success)  # what is good for one outcome is bad for the other
        assert (turned.value, turned.low) == pytest.approx(
            (1 - found.value, 1 - found.high), abs=1e-6
        )
    else:
        assert np.isnan([found.value, found.low, found.high]).all()


def test_auc_of_cases_made_by_hand():
    assert auc(np.array([1, 2, 3, 4]), np.array([0, 0, 1, 1], bool)).value == 1
    assert auc(np.array([1, 2, 3, 4]), np.array([1, 1, 0, 0], bool)).value == 0
    assert auc(np.array([5, 5, 5, 5]), np.array([1, 0, 1, 0], bool)).value == 0.5
    # NaN: no score, left out
    assert auc(np.array([1, 3, 2, np.nan]), np.array([0, 1, 1, 0], bool)).value == 1


def test_the_interval_of_a_perfect_score_is_not_a_point():
    few, many = (auc(np.arange(2.0 * n), np.arange(2 * n) >= n) for n in (4, 100))
    assert few.high == many.high == 1 and 0.4 < few.low < 0.85 < many.low < 1


def delong(score: np.ndarray, success: np.ndarray) -> float:
    """Standard error (DeLong et al., 1988), written without the code under test."""
    x, y = score[success], score[~success]
    v10 = [((a > y) + 0.5 * (a == y)).mean() for a in x]
    v01 = [((x > b) + 0.5 * (x == b)).mean() for b in y]
    return float(np.sqrt(np.var(v10, ddof=1) / len(x) + np.var(v01, ddof=1) / len(y)))


def test_the_interval_is_about_as_wide_as_delongs_where_that_is_sound():
    rng = np.random.default_rng(0)
    success = rng.random(400) < 0.4
    score = _scores(rng, success)
    found = auc(score, success)
    assert (found.high - found.low) / (2 * 1.96 * delong(score, success)) == pytest.approx(
        1, abs=0.12
    )


def _scores(rng: np.random.Generator, success: np.ndarray) -> np.ndarray:
    return rng.normal(size=len(success)) + success


@pytest.mark.parametrize(("m", "n", "shift"), [(10, 20, 0.0), (15, 15, 1.0), (8, 40, 2.0)])
def test_the_interval_covers_the_truth_about_95_times_in_100(m, n, shift):

    rng, truth, success = (
        np.random.default_rng(1),
        norm.cdf(shift / np.sqrt(2)),
        np.arange(m + n) < m,
    )
    inside = 0
    for _ in range(400):
        found = auc(rng.normal(size=m + n) + shift * success, success)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.99


def test_episodes_of_one_state_are_not_counted_as_independent():
    """Four nearly equal episodes per state:
    the naive interval covers far too rarely, ours does not.
    """
    rng, covered = np.random.default_rng(2), {True: 0, False: 0}
    group = np.repeat(np.arange(30), 4)
    for _ in range(300):
        success = np.repeat(rng.random(30) < 0.5, 4)
        score = np.repeat(rng.normal(size=30), 4) + 0.1 * rng.normal(size=120)
        for clustered in covered:
            found = auc(score, success, group if clustered else None)
            covered[clustered] += found.low <= 0.5 <= found.high
    assert covered[True] / 300 > 0.9 and covered[False] / 300 < 0.75


def test_clusters_of_one_change_nothing_and_copies_add_nothing():
    rng = np.random.default_rng(3)
    success = rng.random(60) < 0.5
    score = _scores(rng, success)
    plain = auc(score, success)
    assert auc(score, success, np.arange(60)) == plain
    copies = auc(np.tile(score, 5), np.tile(success, 5), np.tile(np.arange(60), 5))
    assert copies.value == pytest.approx(plain.value)
    assert copies.high - copies.low == pytest.approx(plain.high - plain.low, rel=0.1)
    perfect = auc(
        np.repeat([0.0, 1.0], 20), np.repeat([0, 1], 20).astype(bool), np.repeat(np.arange(8), 5)
    )
    assert perfect.low == pytest.approx(
        auc(np.repeat([0.0, 1], 4), np.repeat([0, 1], 4).astype(bool)).low
    )


def test_within_groups_compares_only_within():
    """The score tells easy from hard states and nothing else:
    plain AUC is high, within states it is a coin.
    """
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(100), 4)
    ease = np.repeat(rng.normal(size=100) * 2, 4)
    success = ease + rng.normal(size=400) > 0
    score = ease + 0.01 * rng.normal(size=400)
    assert auc(score, success, group).low > 0.7
    found = within_groups(score, success, group)
    assert found.low < 0.5 < found.high and 10 < found.groups < 100
    assert within_groups(success.astype(float), success, group).value == 1


def test_within_groups_by_hand():
    score, group = np.array([3, 1, 2, 2, 9.0, np.nan]), np.array([0, 0, 1, 1, 2, 2])
    found = within_groups(score, np.array([1, 0, 1, 0, 1, 0], bool), group)
    # one won pair, one tie; the third state has no comparable pair
    assert (found.value, found.groups) == (0.75, 2)
    assert np.isnan(within_groups(score, np.ones(6, bool), group).value)


def test_the_area_under_the_roc_curve_is_the_auc():
    rng = np.random.default_rng(0)
    success = rng.random(80) < 0.4
    score = np.round(rng.normal(size=80) + success, 1)
    false, true = roc(score, success)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) * (true[1:] + true[:-1]) / 2).sum() == pytest.approx(
        auc(score, success).value
    )
