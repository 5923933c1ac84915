"""PPO and its critic: what is fitted when, and when the policy is left alone."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.rl.ppo import PPO, explained_variance
from wamrl.rl.value import Critic
from wamrl.rollout.types import Rollout


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    with tiny.build_pool() as pool:
        return tiny.explore(tiny.lively(), pool, 12)


def critic(**changes) -> Critic:
    torch.manual_seed(0)
    options = {"batch": 16, "lr": 1e-3, "eps": 1e-8, "grad_norm": 1.0}
    return Critic(tiny.CONFIG.train.learner.value, tiny.lively(), **(options | changes))


def inputs(n: int) -> torch.Tensor:
    """Of n chunks."""
    width = 2 * tiny.MODEL.world.width + 4 + 1
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def updated(rollout: Rollout, reward: torch.Tensor, **changes):
    """The model, the learner and its metrics after one update."""
    wam = tiny.lively()
    torch.manual_seed(0)
    learner = PPO(replace(tiny.CONFIG.train.learner, **changes), wam)
    metrics = learner.update(wam, rollout, reward, tiny.CONFIG.flow, seeded())
    return wam, learner, metrics


def test_value_warm_up_leaves_the_actor_and_trains_the_value(rollout):
    reward = rollout.decisions.success.float()
    wam, learner, metrics = updated(rollout, reward, value_warmup=1)
    assert not tiny.changed(wam, tiny.snapshot(tiny.lively()))
    assert not learner.policy.optimizer.moments and "actor/kl" not in metrics
    assert metrics["actor/value_epochs"] > 1
    again = learner.update(wam, rollout, reward, tiny.CONFIG.flow, seeded())
    assert again["actor/kl"] > 0 and tiny.changed(wam.actor, tiny.snapshot(tiny.lively().actor))


def test_the_value_learns_what_can_be_learned():
    x = inputs(60)
    returns = x[:, 0].sigmoid()
    head = critic()
    head.fit(x, returns, 200, seeded())
    left = returns - head.values(x)
    assert left.square().mean() < 0.2 * returns.var()


def test_value_warm_up_ends_where_unseen_episodes_gain_no_more():
    """Returns that have nothing to do with the inputs: the head must not learn them by heart."""
    x = inputs(60)
    returns = torch.rand(60, generator=seeded())
    unseen = torch.arange(60) % 5 == 4
    head = critic(lr=1e-2)
    metrics = head.fit(x, returns, 200, seeded(), unseen)
    assert metrics["actor/value_epochs"] < 60
    left = (returns - head.values(x))[unseen]
    assert left.square().mean() < 1.5 * returns[unseen].var(unbiased=False)


def test_explained_variance_is_of_chunks_that_the_head_has_not_seen(rollout):
    """Of the value before the fit: a fresh head expects the same everywhere."""
    returns = torch.rand(50, generator=seeded())
    assert explained_variance(torch.full_like(returns, 3.0), returns) == pytest.approx(0, abs=1e-4)
    assert explained_variance(returns.clone(), returns) == pytest.approx(1, abs=1e-4)
    reward = rollout.decisions.success.float()
    _, _, metrics = updated(rollout, reward, epochs=30, value_lr=1e-2)
    assert abs(metrics["actor/explained_variance"]) < 0.05


def test_without_any_spread_of_returns_the_policy_is_left_alone(rollout):
    wam, _, metrics = updated(rollout, torch.zeros(len(rollout.decisions)))
    assert not tiny.changed(wam, tiny.snapshot(tiny.lively())) and "actor/kl" not in metrics


def test_returns_that_are_not_finite_are_refused_in_words(rollout):
    reward = rollout.decisions.success.float()
    reward[3] = torch.inf
    with pytest.raises(FloatingPointError, match="the loss is not finite; lower learner.value_lr"):
        updated(rollout, reward)


def test_the_learner_comes_back_bitwise(rollout):
    reward = rollout.decisions.success.float()
    wam, learner, metrics = updated(rollout, reward)
    assert all(math.isfinite(value) for value in metrics.values())
    other = PPO(tiny.CONFIG.train.learner, wam)
    assert tiny.difference(other.state_dict(), learner.state_dict()) is not None
    other.load_state_dict(learner.state_dict())
    assert tiny.difference(other.state_dict(), learner.state_dict()) is None
