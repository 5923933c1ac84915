"""Intervals against SciPy, rliable's reference values and cases that can be worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, trim_mean

from wamrl.stats.nested import hierarchical, holm, iqm

DIFFERENCE, RATE = (-1, 1), (0, 1)


def test_one_seed_is_the_plain_percentile_bootstrap():
    rng = np.random.default_rng(1)
    for change in (
        rng.choice([-1, 0, 1], 150, p=[0.1, 0.6, 0.3]),
        rng.normal(0.2, 0.3, 80).clip(-1, 1),
    ):
        ends = bootstrap(
            (change,), np.mean, n_resamples=20_000, method="percentile", rng=rng
        ).confidence_interval
        ours = hierarchical([[change]], bounds=DIFFERENCE)
        assert ours.value == pytest.approx(change.mean())
        assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high), abs=0.01)
        assert (ours.tasks, ours.seeds, ours.episodes, ours.method) == (
            1,
            1,
            len(change),
            "bootstrap",
        )


def test_seeds_that_disagree_widen_the_interval():
    """Two seeds, one always and one never:
    a draw of two has mean 0, 1/2 or 1 with chance 1/4, 1/2, 1/4.
    """
    wide = hierarchical([[np.zeros(1000), np.ones(1000)]], bounds=RATE)
    assert (wide.value, wide.low, wide.high) == (0.5, 0.0, 1.0)
    mixed = np.arange(1000) % 2
    # the same data, with the spread within seeds
    narrow = hierarchical([[mixed, mixed]], bounds=RATE)
    assert narrow.value == 0.5 and 0.45 < narrow.low < 0.49 and 0.51 < narrow.high < 0.55


def test_two_levels_of_variance_add_up():
    """Variance of the resampled mean: that of seeds' means (biased) / S,
    plus the mean within-seed variance / (S E).
    """
    rng = np.random.default_rng(0)
    seeds = [(rng.random(60) < p).astype(float) for p in (0.2, 0.35, 0.5, 0.4, 0.6)]
    e = hierarchical([seeds], bounds=RATE, resamples=40_000)
    means = np.array([x.mean() for x in seeds])
    deviation = np.sqrt(means.var() / 5 + np.mean([x.var() for x in seeds]) / (5 * 60))
    assert (e.high - e.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.04)


def test_tasks_and_seeds_weigh_equally_whatever_their_size():
    e = hierarchical([[np.ones(10), np.zeros(90)], [np.array([1.0, 0, 0, 0])]], bounds=RATE)
    assert e.value == pytest.approx((0.5 + 0.25) / 2) and (e.tasks, e.seeds, e.episodes) == (
        2,
        1,
        104,
    )


def test_no_spread_gives_an_exact_interval_and_not_a_point():
    for n in (4, 300):
        share = 1 - 0.025 ** (1 / n)
        same = hierarchical([[np.zeros(n)]], bounds=DIFFERENCE)
        assert (same.low, same.value, same.high) == pytest.approx(
            (-share, 0, share)
        ) and same.method == "exact"
        won = hierarchical([[np.ones(n // 2), np.ones(n // 2)]], bounds=RATE)
        assert (won.low, won.high) == pytest.approx((binomtest(n, n).proportion_ci().low, 1))


def test_the_interval_covers_what_it_says():
    """Truth 0 over new seeds and new states;
    ten seeds, so that the bootstrap knows their spread.
    """
    rng, hits, n = np.random.default_rng(3), 0, 200
    for i in range(n):
        p = rng.normal(0, 0.08, 10)
        seeds = [
            rng.choice([-1, 0, 1], 60, p=[0.2 - x / 2, 0.6, 0.2 + x / 2]) for x in p.clip(-0.3, 0.3)
        ]
        e = hierarchical([seeds], bounds=DIFFERENCE, resamples=600, seed=i)
        hits += e.low <= 0 <= e.high
    assert 0.90 <= hits / n <= 1.0


def test_the_same_seed_gives_the_same_interval():
    data = [[np.arange(40) % 3 == 0, np.arange(40) % 5 == 0]]
    assert hierarchical(data, bounds=RATE) == hierarchical(data, bounds=RATE)
    with pytest.raises(ValueError, match="finish the study's cells"):
        hierarchical([[np.ones(3)], []], bounds=RATE)


# python -m venv v && v/bin/pip install rliable 'pandas<3'
# (rliable 1.2.0, arch 7.2.0, pandas 2.3.3); then
#   library.get_interval_estimates({"x": x}, lambda s:
# np.array([metrics.aggregate_iqm(s)]), reps=50000,
#                                  random_state=np.random.RandomState(0))   # x: (seeds, tasks)
RLIABLE = [
    (
        np.array(
            [
                [0.595, 0.32, 0.11],
                [0.64, 0.41, 0.05],
                [0.7, 0.28, 0.19],
                [0.555, 0.37, 0.08],
                [0.83, 0.3, 0.02],
            ]
        ),
        (0.34777778, 0.31777778, 0.381125),
    ),
    ((np.arange(60).reshape(10, 6) * 37 % 101) / 101.0, (0.49009901, 0.38943894, 0.59174917)),
]


@pytest.mark.parametrize(("scores", "reference"), RLIABLE)
def test_the_interquartile_mean_is_rliables(scores, reference):
    ours = iqm(list(scores.T), resamples=50_000)
    assert ours.value == pytest.approx(reference[0], abs=1e-8)
    assert ours.value == pytest.approx(trim_mean(scores, 0.25, axis=None))
    assert (ours.low, ours.high) == pytest.approx(reference[1:], abs=0.004)


def test_holm_is_that_of_r():
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.04]) == [0.04]
