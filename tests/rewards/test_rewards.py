"""Rewards: the checker, what counts, the bound of the shaping, and the running statistics."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wamrl.rewards.base import (
    ROWS,
    RewardInputs,
    RunningNorm,
    Similarity,
    SimilarityConfig,
    reconstruction,
)
from wamrl.rewards.check import check_reward
from wamrl.rewards.pixels import PixelConfig, PixelMSE
from wamrl.rewards.reward import Reward, RewardConfig


def scored(m: int = 6, f: int = 2, seed: int = 0, **changes) -> RewardInputs:
    g = torch.Generator().manual_seed(seed)
    frames = [torch.rand(m, f, 1, 4, 4, 3, generator=g) for _ in range(2)]
    plain = RewardInputs(
        imagined=frames[0],
        executed=frames[1],
        last=torch.rand(m, 1, 4, 4, 3, generator=g),
        verifiable=torch.ones(m, f, dtype=torch.bool),
        success=torch.zeros(m, dtype=torch.bool),
        offsets=tuple(range(4, 4 * f + 1, 4)),
        imagined_offsets=tuple(range(4, 4 * f + 1, 4)),
        executed_steps=torch.full((m,), 4 * f),
    )
    return replace(plain, **changes)


def score(reward: Reward, s: RewardInputs, won: bool | torch.Tensor = False) -> torch.Tensor:
    """The rewards of `s`, taken as one episode,
    or as one per chunk where `won` differs between chunks.
    """
    m = len(s.success)
    one = isinstance(won, bool)
    return reward(
        s, torch.full((m,), won) if one else won, torch.zeros(m).long() if one else torch.arange(m)
    )


# --- the checker


class Wrapped(Similarity):
    """Pixel MSE with a fault."""

    def __init__(self, fault):
        self.fault = fault

    def distance(self, a, b, last):
        return self.fault(PixelMSE().distance(a, b, last), a, b)


@dataclass(frozen=True, kw_only=True)
class Faulty(SimilarityConfig):
    fault: object
    name: str = "faulty"

    def build(self):
        return Wrapped(self.fault)


@dataclass(frozen=True, kw_only=True)
class Unseeded(SimilarityConfig):
    """Another random network at every build: a resumed run would be scored by another reward."""

    name: str = "unseeded"

    def build(self):
        factor = 1 + torch.rand(())
        return Wrapped(lambda d, a, b: d * factor)


def into_the_frames(d, a, b):
    a.mul_(0.5)
    return d


FAULTS = {
    "returns shape": lambda d, a, b: d.mean(1),
    "non-negative": lambda d, a, b: -d,
    "finite": lambda d, a, b: d / 0 * 0,
    "float32": lambda d, a, b: d.double(),
    "distance 0": lambda d, a, b: d + 1,
    "different frames a larger one": lambda d, a, b: d * 0,
    "deterministic": lambda d, a, b: d * (1 + torch.rand_like(d)),
    "other rows": lambda d, a, b: d * d[:1],
    "other rows of the batch": lambda d, a, b: d * d.mean(0),  # the same in any order
    "later frames": lambda d, a, b: d * (1 + d[:, -1:]),
    "later frames, which may": lambda d, a, b: d.mean(1, keepdim=True).expand_as(d),
    "gradient": lambda d, a, b: d * torch.nn.Parameter(torch.ones(())),
    "changes the frames": into_the_frames,
    "distances on meta": lambda d, a, b: d.to("meta"),
}


def test_what_ships_passes():
    check_reward(PixelConfig())
    check_reward(Faulty(fault=lambda d, a, b: d.sqrt()), shape=(2, 3, 1, 5, 7))
    # the scale of a distance is its own business
    check_reward(Faulty(fault=lambda d, a, b: d * 1e-9))


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_broken_similarity_is_named(sentence):
    with pytest.raises(ValueError, match=f"Faulty: .*{sentence}"):
        check_reward(Faulty(fault=FAULTS[sentence]))


def test_a_similarity_that_changes_between_builds_is_named():
    with pytest.raises(ValueError, match="Unseeded: .*deterministic"):
        check_reward(Unseeded())


def test_a_check_that_could_not_fail_is_refused():
    with pytest.raises(ValueError, match="at least 2 chunks and 2 frames"):
        check_reward(PixelConfig(), shape=(1, 2, 1, 8, 8))
    with pytest.raises(ValueError, match="name must be"):
        check_reward(Faulty(fault=lambda d, a, b: d, name=""))


# --- imagined and executed frames belong to the same moments


def test_misaligned_frames_are_refused():
    s = scored(3, 2)
    for match, change in (
        ("cannot be compared", {"imagined_offsets": (4, 12)}),
        ("frames at the offsets", {"offsets": (4,), "imagined_offsets": (4,)}),
        ("beyond the executed steps", {"executed_steps": torch.tensor([8, 7, 8])}),
        (r"torch.Size", {"imagined": s.imagined[:, :1]}),
        (r"torch.Size", {"last": s.last[:2]}),
        (r"torch.Size", {"verifiable": s.verifiable[:, :1]}),
        ("one success", {"executed_steps": torch.tensor([8, 8])}),
    ):
        with pytest.raises(AssertionError, match=match):
            replace(s, **change)
    replace(
        s,
        executed_steps=torch.tensor([8, 4, 0]),
        verifiable=torch.tensor([[1, 1], [1, 0], [0, 0]]).bool(),
    )


# --- what counts


def test_reconstruction_is_minus_the_mean_over_verifiable_frames():
    s = scored(3, 2, verifiable=torch.tensor([[True, True], [True, False], [False, False]]))
    r = reconstruction(PixelMSE(), s.imagined, s.executed, s.last, s.verifiable)
    error = ((s.imagined - s.executed) ** 2).numpy().reshape(3, 2, -1).mean(-1)
    assert np.allclose(r, [-error[0].mean(), -error[1, 0], 0.0], atol=1e-6)


@pytest.mark.parametrize("mode", ["paper", "composite"])
def test_frames_that_are_not_verifiable_have_no_influence(mode):
    mask = torch.tensor([[True, False], [True, True], [False, False], [True, False]])
    a = scored(4, 2, verifiable=mask)
    other = a.executed.clone()
    other[~mask] = 1 - other[~mask]
    b = replace(a, executed=other)
    rewards = [score(RewardConfig(mode=mode).build(4), s) for s in (a, b)]
    assert torch.equal(*rewards) and rewards[0][2] == 0 and rewards[0][1] != 0


def test_chunks_without_a_verifiable_frame_do_not_enter_the_statistics():
    reward = RewardConfig(mode="paper").build(4)
    score(
        reward,
        scored(
            4,
            2,
            verifiable=torch.tensor([[True, True], [False, False], [True, False], [False, False]]),
        ),
    )
    assert reward.norm.count == 2


def test_success_mode_is_success_alone():
    s = scored(success=torch.tensor([1, 0, 0, 1, 0, 0]).bool())
    reward = RewardConfig(mode="success").build(4)
    assert score(reward, s, s.success).tolist() == [1, 0, 0, 1, 0, 0] and reward.norm.count == 0
    assert (
        not reward.cfg.needs_imagination
        and not RewardConfig(mode="composite", shaping=0.0).needs_imagination
    )
    assert RewardConfig(mode="paper", shaping=0.0).needs_imagination


def test_paper_mode_ignores_success_and_is_scaled_as_it_says():
    s = scored(200)
    for scale in ("motion", "deviation", "centred"):
        config = RewardConfig(mode="paper", paper_scale=scale)
        r = score(config.build(4), s, s.success)
        assert torch.equal(r, score(config.build(4), replace(s, success=~s.success), ~s.success))
        guesses = (s.imagined, s.last[:, None])
        error, copied = (((x - s.executed) ** 2).flatten(1).mean(1) for x in guesses)
        usual = copied.mean()
        wanted = {
            "motion": -((error + usual) / (copied + usual)).clamp(max=1),
            "deviation": -error / error.std(unbiased=False),
            "centred": (error.mean() - error) / error.std(unbiased=False),
        }
        assert torch.allclose(r, wanted[scale], atol=1e-4)


# --- resting does not pay


def episode_of(executed: Tensor, imagined: Tensor, last: Tensor, won: bool) -> RewardInputs:
    """C chunks of one frame each, (C, 1, 1, 4, 4, 3)."""
    success = torch.zeros(len(executed), dtype=torch.bool)
    seen = torch.ones(len(executed), 1, dtype=torch.bool)
    success[-1] = won
    return RewardInputs(
        imagined=imagined,
        executed=executed,
        last=last,
        verifiable=seen,
        success=success,
        offsets=(4,),
        imagined_offsets=(4,),
        executed_steps=torch.full((len(executed),), 4),
    )


def total(config: RewardConfig, *parts: RewardInputs, max_chunks: int) -> list[float]:
    """The reward of each episode, all scored together."""
    names = [k for k, v in vars(parts[0]).items() if torch.is_tensor(v)]
    joined = {k: torch.cat([getattr(p, k) for p in parts]) for k in names}
    counts = [len(p.success) for p in parts]
    episode = torch.arange(len(parts)).repeat_interleave(torch.tensor(counts))
    won = torch.stack([p.success.any() for p in parts])[episode]
    r = config.build(max_chunks)(replace(parts[0], **joined), won, episode)
    return [part.sum().item() for part in r.split(counts)]


@settings(max_examples=60, deadline=None)
@given(
    played=st.integers(1, 8),
    most=st.integers(8, 14),
    error=st.floats(0.0, 10.0),
    noise=st.sampled_from([0.0, 1e-4, 1e-2]),
    seed=st.integers(0, 1000),
)
def test_a_resting_failure_does_not_beat_a_success(played, most, error, noise, seed):
    """Rest, imagined exactly or nearly; a success, imagined well, badly or wildly wrong."""
    g = torch.Generator().manual_seed(seed)
    shape = (1, 1, 4, 4, 3)
    last, executed, wrong = (torch.rand(played, *shape, generator=g) for _ in range(3))
    won = episode_of(executed, executed + error * (wrong - 0.5), last[:, 0], True)
    still = torch.rand(1, *shape, generator=g).expand(most, -1, -1, -1, -1, -1)
    guess = still + noise * torch.randn(still.shape, generator=g)
    rest = episode_of(still, guess, still[:, 0], False)
    a, b = total(RewardConfig(mode="paper"), won, rest, max_chunks=most)
    assert a >= b - 1e-4 and (played == most or a > b)


def test_resting_beats_a_success_where_a_score_is_only_scaled_or_centred():
    """Why the scale is the motion: else imagined rest costs nothing; centred it even earns."""
    g = torch.Generator().manual_seed(0)
    last, executed, other = (torch.rand(4, 1, 1, 4, 4, 3, generator=g) for _ in range(3))
    won = episode_of(executed, executed + 0.3 * (other - executed), last[:, 0], True)
    grey = torch.full((8, 1, 1, 4, 4, 3), 0.5)
    rest = episode_of(grey, grey, grey[:, 0], False)
    sums = {
        scale: total(RewardConfig(mode="paper", paper_scale=scale), won, rest, max_chunks=8)
        for scale in ("motion", "deviation", "centred")
    }
    assert sums["motion"][0] > -4 > sums["motion"][1] + 3.9
    assert sums["deviation"][0] < 0 == sums["deviation"][1]
    assert sums["centred"][0] < -2 and sums["centred"][1] > 2


def test_shaping_on_failures_only():
    s, won = scored(), torch.tensor([1, 1, 1, 0, 0, 0]).bool()
    r = score(RewardConfig(mode="composite", shaping=0.2, failures_only=True).build(4), s, won)
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
    # while moving as imagined does
    assert (RewardConfig(mode="composite").build(4).raw(perfect) > 0).all()


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
    """Whatever the frames are, and were before (`history`):
    the worst success beats the best failure.
    """
    reward = RewardConfig(mode="composite", shaping=shaping, failures_only=failures_only).build(
        max_chunks
    )
    if history is not None:  # every chunk is now an outlier in the same direction
        reward.norm.update(history + torch.linspace(-1e-3, 1e-3, 1000))
    g = torch.Generator().manual_seed(seed)
    totals = {}
    for won in (True, False):
        s = scored(max_chunks, 2, seed=seed + won)
        outlier = torch.where(torch.rand(max_chunks, generator=g) < 0.3, scale, 1.0).view(
            -1, 1, 1, 1, 1, 1
        )
        success = torch.zeros(max_chunks, dtype=torch.bool)
        success[-1] = won
        s = replace(s, imagined=s.imagined * outlier, success=success)
        r = score(reward, s, won)
        assert r.isfinite().all()
        totals[won] = r.sum().item()
        assert abs(totals[won] - won) <= shaping + 1e-5 < 0.5
    assert totals[True] > totals[False]


def test_an_episode_longer_than_the_bound_rests_on_is_refused():
    s, won = scored(6), torch.zeros(6, dtype=torch.bool)
    episode = torch.tensor([0, 0, 1, 1, 1, 0])
    reward = RewardConfig(mode="composite").build(3)
    assert reward(s, won, episode).isfinite().all()
    with pytest.raises(ValueError, match="4 chunks, but .* at most 3"):
        reward(s, won, torch.tensor([0, 0, 1, 1, 1, 1]))
    assert reward.norm.count == 6  # and the refused ones left no trace in the statistics


def test_many_chunks_are_compared_in_parts():
    s = scored(2 * ROWS + 3)
    reward = RewardConfig(mode="composite").build(4)
    parts = [reward.raw(replace_rows(s, slice(i, i + 1))) for i in (0, ROWS, 2 * ROWS + 2)]
    assert torch.allclose(torch.cat(parts), reward.raw(s)[[0, ROWS, 2 * ROWS + 2]], atol=1e-7)
    assert len(reward.raw(s)) == len(s.success)


def test_bytes_are_compared_as_the_frames_that_they_are():
    s = scored(5)
    as_bytes = {k: (getattr(s, k) * 255).byte() for k in ("imagined", "executed", "last")}
    as_floats = {k: v.float() / 255 for k, v in as_bytes.items()}
    reward = RewardConfig(mode="composite").build(4)
    assert torch.equal(reward.raw(replace(s, **as_bytes)), reward.raw(replace(s, **as_floats)))


def replace_rows(s: RewardInputs, rows: slice) -> RewardInputs:
    return replace(s, **{k: v[rows] for k, v in vars(s).items() if isinstance(v, torch.Tensor)})


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
        assert (norm.m2 / norm.count).sqrt().item() == pytest.approx(
            everything.std(), rel=1e-6, abs=1e-5
        )
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
