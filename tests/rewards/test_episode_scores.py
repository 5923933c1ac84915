"""Raw rewards, the controlled window, motion and sharpness."""

import numpy as np
import torch

from wamrl.rewards.base import reconstruction
from wamrl.rewards.episode_scores import (
    early,
    episode_mean,
    motion_energy,
    over_verifiable,
    raw_rewards,
    sharpness,
)
from wamrl.rewards.pixels import PixelMSE
from wamrl.stats.auc import auc

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
    found = raw_rewards(PixelMSE(), u, w, w0, real)
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
