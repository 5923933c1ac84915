"""AUC and its interval, the controlled window, motion and sharpness, and the two trend tests."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, mannwhitneyu

from wamrl.rewards.base import reconstruction
from wamrl.rewards.episode_scores import (
    auc,
    chance_of_fall,
    chance_of_rise,
    early,
    episode_mean,
    motion_energy,
    over_verifiable,
    raw_rewards,
    sharpness,
    within_groups,
)
from wamrl.rewards.pixels import PixelMSE

# --- AUC


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
    from scipy.stats import norm

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


# --- which chunks count


def test_episode_mean():
    score, episode = (
        torch.tensor([1.0, 3.0, torch.nan, 5.0, torch.nan]),
        torch.tensor([0, 0, 0, 2, 3]),
    )
    found = episode_mean(score, episode, torch.ones(5, dtype=torch.bool), 4)
    assert found[0] == 2 and found[2] == 5 and found[[1, 3]].isnan().all()
    assert episode_mean(score, episode, torch.tensor([1, 0, 1, 1, 1]).bool(), 4)[0] == 1


def test_early_gives_every_episode_the_same_chunks_and_never_its_last():
    count = torch.tensor([9, 4, 9, 1, 9, 5, 9, 9, 9, 9, 9, 9])
    success = count < 9
    episode = torch.arange(len(count)).repeat_interleave(count)
    quick = early(episode, success)  # the quickest success ended in its first chunk
    assert torch.bincount(episode[quick], minlength=len(count)).tolist() == [
        int(c > 1) for c in count
    ]
    assert quick.nonzero().flatten()[:3].tolist() == [0, 9, 13]
    count[3] = 4
    episode = torch.arange(len(count)).repeat_interleave(count)
    assert torch.bincount(episode[early(episode, success)]).tolist() == [3] * len(count)
    assert not early(torch.arange(5), torch.arange(5) > 2).any()  # single chunks are last chunks
    assert early(torch.zeros(4, dtype=torch.long), torch.tensor([True])).tolist() == [1, 1, 1, 0]


def test_rare_and_quick_successes_stay_in_the_comparison():
    """K follows the outcome that ends sooner:
    else the many long failures would push all successes out.
    """
    success = torch.arange(100) < 8
    count = torch.where(success, 3, 8)
    episode = torch.arange(100).repeat_interleave(count)
    assert torch.bincount(episode[early(episode, success)]).tolist() == [2] * 100


def test_a_score_that_knows_only_the_length_is_exposed_by_the_early_window():
    """Reward of chunk t is -t: failures, being longer, score lower on average;
    early chunks tell nothing.
    """
    success = torch.arange(40) % 2 == 0
    count = torch.where(success, 4, 10)
    episode = torch.arange(40).repeat_interleave(count)
    score = -torch.cat([torch.arange(c) for c in count.tolist()]).float()
    whole = episode_mean(score, episode, torch.ones_like(episode, dtype=torch.bool), 40)
    assert auc(whole.numpy(), success.numpy()).value == 1
    assert (
        auc(
            episode_mean(score, episode, early(episode, success), 40).numpy(), success.numpy()
        ).value
        == 0.5
    )


# --- frames


def frames(m: int = 70, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    a, b = torch.rand(m, 2, 1, 8, 8, 3, generator=g), torch.rand(m, 2, 1, 8, 8, 3, generator=g)
    return a, b, torch.rand(m, 1, 8, 8, 3, generator=g), torch.rand(m, 2, generator=g) < 0.6


def test_raw_rewards_are_what_the_reward_is_made_of():
    u, w, w0, real = frames()
    found = raw_rewards(PixelMSE(), u, w, w0, real, batch=32)
    copied = w0[:, None].expand_as(w)
    known = real.any(1)
    assert torch.allclose(
        found["reconstruction"][known], reconstruction(PixelMSE(), u, w, w0, real)[known]
    )
    assert torch.allclose(
        found["copy"][known], reconstruction(PixelMSE(), copied, w, w0, real)[known]
    )
    assert torch.allclose(found["gain"][known], (found["reconstruction"] - found["copy"])[known])
    assert not known.all() and all(r[~known].isnan().all() for r in found.values())
    other = w.clone()
    other[~real] = 0
    again = raw_rewards(PixelMSE(), u, other, w0, real)
    assert all(torch.equal(again[k].nan_to_num(9), found[k].nan_to_num(9)) for k in found)


def test_motion_energy_of_still_frames_is_zero():
    u, _, w0, _ = frames()
    assert (motion_energy(w0[:, None].expand_as(u), w0) == 0).all()
    assert torch.allclose(
        motion_energy(w0[:, None] + 0.1, w0), torch.full((70, 1), 0.01), atol=1e-6
    )


def test_sharpness_falls_under_blur_and_is_zero_for_ramps():
    from scipy.ndimage import gaussian_filter

    sharp = np.zeros((1, 1, 1, 32, 32, 3), np.float32)
    sharp[..., 8:20, 10:24, :] = 1
    values = [
        sharpness(
            torch.from_numpy(gaussian_filter(sharp, (0, 0, 0, s, s, 0)) if s else sharp)
        ).item()
        for s in (0, 0.5, 1, 2)
    ]
    assert values == sorted(values, reverse=True) and values[0] > 5 * values[2] > 0
    ramp = torch.linspace(0, 1, 32).view(1, 1, 1, 1, 32, 1).expand(1, 1, 1, 32, 32, 3)
    assert sharpness(ramp).item() < 1e-10
    assert sharpness(torch.rand(5, 3, 2, 8, 8, 3)).shape == (5, 3)


def test_only_verifiable_frames_are_averaged():
    x = torch.tensor([[1.0, 100.0], [3.0, 5.0]])
    assert over_verifiable(x, torch.tensor([[True, False], [True, True]])) == 3
    assert np.isnan(over_verifiable(x, torch.zeros(2, 2, dtype=torch.bool)))


# --- trends


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
    from scipy.stats import norm

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
