"""Rewards: the checker, what counts, the bound of the shaping, and the running statistics."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wamrl.rewards.base import RunningNorm, Scored, Similarity, SimilarityConfig, reconstruction
from wamrl.rewards.pixels import PixelConfig, PixelMSE
from wamrl.rewards.reward import RewardConfig, check_reward


def scored(m: int = 6, f: int = 2, seed: int = 0, **changes) -> Scored:
    g = torch.Generator().manual_seed(seed)
    frames = [torch.rand(m, f, 1, 4, 4, 3, generator=g) for _ in range(2)]
    plain = Scored(
        imagined=frames[0], executed=frames[1], last=torch.rand(m, 1, 4, 4, 3, generator=g),
        verifiable=torch.ones(m, f, dtype=torch.bool), success=torch.zeros(m, dtype=torch.bool),
    )  # fmt: skip
    return replace(plain, **changes)


# --- the checker


class Wrapped(Similarity):
    """Pixel MSE with a fault."""

    def __init__(self, fault):
        self.fault = fault

    def distance(self, a, b):
        return self.fault(PixelMSE().distance(a, b), a, b)


@dataclass(frozen=True, kw_only=True)
class Faulty(SimilarityConfig):
    fault: object

    def build(self):
        return Wrapped(self.fault)


FAULTS = {
    "returns shape": lambda d, a, b: d.mean(1),
    "non-negative": lambda d, a, b: -d,
    "finite": lambda d, a, b: d / 0 * 0,
    "float32": lambda d, a, b: d.double(),
    "distance 0": lambda d, a, b: d + 1,
    "different frames a larger one": lambda d, a, b: d * 0,
    "deterministic": lambda d, a, b: d * (1 + torch.rand_like(d)),
    "other rows": lambda d, a, b: d * d[:1],
}


def test_what_ships_passes():
    check_reward(PixelConfig())
    check_reward(Faulty(fault=lambda d, a, b: d.sqrt()))


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_broken_similarity_is_named(sentence):
    with pytest.raises(ValueError, match=f"Faulty: .*{sentence}"):
        check_reward(Faulty(fault=FAULTS[sentence]))


# --- what counts


def test_reconstruction_is_minus_the_mean_over_verifiable_frames():
    s = scored(3, 2, verifiable=torch.tensor([[True, True], [True, False], [False, False]]))
    r = reconstruction(PixelMSE(), s.imagined, s.executed, s.verifiable)
    error = ((s.imagined - s.executed) ** 2).numpy().reshape(3, 2, -1).mean(-1)
    assert np.allclose(r, [-error[0].mean(), -error[1, 0], 0.0], atol=1e-6)


@pytest.mark.parametrize("mode", ["paper", "composite"])
def test_frames_that_are_not_verifiable_have_no_influence(mode):
    mask = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    a = scored(4, 2, verifiable=mask)
    other = a.executed.clone()
    other[~mask] = 1 - other[~mask]
    b = replace(a, executed=other)
    rewards = [RewardConfig(mode=mode).build(4)(s, torch.zeros(4, dtype=torch.bool)) for s in (a, b)]
    assert torch.equal(*rewards) and rewards[0][2] == 0 and rewards[0][1] != 0


def test_chunks_without_a_verifiable_frame_do_not_enter_the_statistics():
    reward = RewardConfig(mode="paper").build(4)
    reward(scored(4, 2, verifiable=torch.tensor([[True, True], [False, False], [True, False], [False, False]])), None)
    assert reward.norm.count == 2


def test_success_mode_is_success_alone():
    s = scored(success=torch.tensor([1, 0, 0, 1, 0, 0]).bool())
    reward = RewardConfig(mode="success").build(4)
    assert reward(s, s.success).tolist() == [1, 0, 0, 1, 0, 0] and reward.norm.count == 0
    assert not reward.cfg.needs_imagination and not RewardConfig(mode="composite", shaping=0.0).needs_imagination
    assert RewardConfig(mode="paper", shaping=0.0).needs_imagination


def test_paper_mode_has_mean_zero_and_ignores_success():
    s = scored(200)
    reward = RewardConfig(mode="paper").build(4)
    r = reward(s, s.success)
    assert abs(r.mean()) < 1e-4 and abs(r.std(unbiased=False) - 1) < 1e-4
    other = RewardConfig(mode="paper").build(4)(replace(s, success=~s.success), ~s.success)
    assert torch.equal(r, other)


def test_shaping_on_failures_only():
    s, won = scored(), torch.tensor([1, 1, 1, 0, 0, 0]).bool()
    r = RewardConfig(mode="composite", shaping=0.2, failures_only=True).build(4)(s, won)
    assert (r[:3] == 0).all() and (r[3:] != 0).all()


# --- the composite cannot be hacked


def test_copying_the_last_frame_earns_nothing():
    s = scored()
    copy = replace(s, imagined=s.last[:, None].expand_as(s.executed))
    assert (RewardConfig(mode="composite").build(4).raw(copy) == 0).all()


def test_standing_still_earns_nothing():
    """Nothing moves: copying is then perfect, so no imagination can gain."""
    s = scored()
    still = replace(s, executed=s.last[:, None].expand_as(s.executed))
    raw = RewardConfig(mode="composite").build(4).raw(still)
    assert (raw <= 0).all()
    perfect = replace(s, imagined=s.executed)
    assert (RewardConfig(mode="composite").build(4).raw(perfect) > 0).all()  # while moving as imagined does


@settings(max_examples=40, deadline=None)
@given(
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e6, 1e15]),
    shaping=st.floats(0.0, 0.499),
    max_chunks=st.integers(1, 12),
    seed=st.integers(0, 1000),
    failures_only=st.booleans(),
    history=st.sampled_from([None, -10.0, 10.0]),
)
def test_the_shaping_of_an_episode_stays_below_half_the_success_gap(
    scale, shaping, max_chunks, seed, failures_only, history
):
    """Whatever the frames are, and were before (`history`): the worst success beats the best failure."""
    reward = RewardConfig(mode="composite", shaping=shaping, failures_only=failures_only).build(max_chunks)
    if history is not None:  # every chunk is now an outlier in the same direction
        reward.norm.update(history + torch.linspace(-1e-3, 1e-3, 1000))
    g = torch.Generator().manual_seed(seed)
    totals = {}
    for won in (True, False):
        s = scored(max_chunks, 2, seed=seed + won)
        outlier = torch.where(torch.rand(max_chunks, generator=g) < 0.3, scale, 1.0).view(-1, 1, 1, 1, 1, 1)
        success = torch.zeros(max_chunks, dtype=torch.bool)
        success[-1] = won
        s = replace(s, imagined=s.imagined * outlier, success=success)
        r = reward(s, torch.full((max_chunks,), won))
        assert r.isfinite().all()
        totals[won] = r.sum().item()
        assert abs(totals[won] - won) <= shaping + 1e-5 < 0.5
    assert totals[True] > totals[False]


@pytest.mark.parametrize("change", [{"shaping": 0.5}, {"shaping": -0.1}, {"imagine_steps": 0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="reward"):
        RewardConfig(**change).build(4)


# --- running statistics


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), max_size=20), min_size=1, max_size=6))
def test_running_norm_is_numpys_mean_and_standard_deviation(batches):
    norm, everything = RunningNorm(), np.concatenate([np.array(b, np.float64) for b in batches])
    for b in batches:
        norm.update(torch.tensor(b))
    if len(everything):
        assert norm.mean.item() == pytest.approx(everything.mean(), abs=1e-6)
        assert (norm.m2 / norm.count).sqrt().item() == pytest.approx(everything.std(), rel=1e-6, abs=1e-5)
    assert norm.count == len(everything)


def test_running_norm_normalises_and_comes_back():
    norm = RunningNorm()
    for seed in range(3):
        norm.update(5 + 2 * torch.randn(500, generator=torch.Generator().manual_seed(seed)))
    x = torch.tensor([5.0, 7.0, 3.0])
    assert torch.allclose(norm(x), torch.tensor([0.0, 1.0, -1.0]), atol=0.15)
    other = RunningNorm()
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other(x), norm(x)) and norm(x).dtype == torch.float32
