"""GAE and GRPO against definitions written out."""

import numpy as np
import pytest
import torch

from wamrl.rl.advantage import control_variate, gae, group_relative, leave_one_out


def brute_force(rewards, values, bootstrap, gamma, lam):
    """A_t = sum_k (gamma lam)^k delta_{t+k} of one episode."""
    nexts = [*values[1:], bootstrap]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, nexts, values, strict=True)]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
        for t in range(len(deltas))
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_gae_on_ragged_episodes(gamma, lam):
    rng = np.random.default_rng(0)
    lengths = [1, 5, 2, 1, 7]
    episode = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    reward, value, after = (
        torch.tensor(rng.normal(size=16), dtype=torch.float32) for _ in range(3)
    )
    advantage, returns = gae(reward, value, episode, after, gamma, lam)
    wanted, at = [], 0
    for n in lengths:
        rows = slice(at, at + n)
        wanted += brute_force(
            reward[rows].tolist(), value[rows].tolist(), after[at + n - 1].item(), gamma, lam
        )
        at += n
    assert np.allclose(advantage, wanted, atol=1e-5)
    assert torch.allclose(returns, advantage + value)


def test_lambda_one_without_value_is_the_discounted_return():
    reward, zero = torch.tensor([0.0, 0.0, 1.0, 2.0]), torch.zeros(4)
    _, returns = gae(reward, zero, torch.tensor([0, 0, 0, 1]), zero, 0.5, 1.0)
    assert returns.tolist() == [0.25, 0.5, 1.0, 2.0]


def test_the_bootstrap_counts_at_the_last_row_only():
    reward, value = torch.zeros(3), torch.zeros(3)
    advantage, _ = gae(
        reward, value, torch.tensor([0, 0, 1]), torch.tensor([100.0, 1.0, 2.0]), 1.0, 1.0
    )
    assert advantage.tolist() == [1.0, 1.0, 2.0]


def test_grpo_filters_on_success_and_normalises_within_groups():
    group = torch.tensor([7, 7, 7, 2, 2, 2, 5, 5, 5, 9])
    success = torch.tensor([1, 0, 0, 1, 1, 1, 0, 0, 0, 1]).bool()
    # varies in every group of three
    reward = torch.tensor([1.3, 0.1, -0.1, 1.0, 1.2, 1.4, 0.3, 0.2, 0.1, 1.0])
    advantage, keep = group_relative(reward, success, group)
    assert keep.tolist() == [True] * 3 + [False] * 7
    mixed = reward[:3].numpy()
    assert np.allclose(advantage[:3], (mixed - mixed.mean()) / (mixed.std() + 1e-6), atol=1e-5)
    assert abs(advantage[:3].mean()) < 1e-6 and abs(advantage[:3].std(unbiased=False) - 1) < 1e-4


def test_grpo_with_equal_rewards_in_a_mixed_group_is_zero_not_nan():
    advantage, keep = group_relative(
        torch.ones(2), torch.tensor([True, False]), torch.tensor([0, 0])
    )
    assert keep.all() and advantage.tolist() == [0.0, 0.0]


def test_leave_one_out_is_the_mean_of_the_others():
    value = torch.tensor([1.0, 2.0, 6.0, 5.0, 9.0])
    group = torch.tensor([7, 7, 7, 3, 4])
    assert leave_one_out(value, group).tolist() == [4.0, 3.5, 1.5, 0.0, 0.0]


def test_the_control_variate_takes_off_what_groups_share_and_nothing_of_noise():
    g = torch.Generator().manual_seed(0)
    group = torch.arange(2000).div(4, rounding_mode="floor")
    shared = torch.randn(500, generator=g)[group]
    own = 0.3 * torch.randn(2000, generator=g)
    baseline = leave_one_out(shared + own, group)
    share = control_variate(shared + own, baseline)
    assert 0.9 < share <= 1
    assert (shared + own - share * baseline).var() < 0.15 * (shared + own).var()
    assert control_variate(own, leave_one_out(own, group)) < 0.1
