"""Ways to earn the reward without deserving it, on real rendered episodes, for every similarity."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.recorded import Recorded, record, together
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.point import PointConfig
from wamrl.rewards.base import RewardInputs
from wamrl.rewards.features import DINOv2Config, VJEPA2Config
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.rewards.pixels import PixelConfig
from wamrl.rewards.reward import RewardConfig

torch.set_num_threads(1)
SIMILARITIES = (
    PixelConfig(),
    OpticalFlowConfig(),
    DINOv2Config(weights=None, size=56),
    VJEPA2Config(weights=None, size=64),
)
every = pytest.mark.parametrize("similarity", SIMILARITIES, ids=lambda c: c.name)
MAX_CHUNKS = 5  # 40 control steps in chunks of 8
SEEDS = range(3)


@cache
def episodes() -> dict[str, list[Recorded]]:
    """Of the point environment, from the same initial states:
    the expert, one who errs, and one who stays.
    """
    env = PointConfig().build()

    def to_the_wrong_place(env):
        scene = env.scene
        return np.clip(6 * (-scene.goal - scene.position) - 18 * scene.velocity, -1, 1)

    policies = {
        "success": lambda env: env.expert().action(),
        "failure": to_the_wrong_place,
        "still": lambda env: np.zeros(2),
    }
    found = {
        name: [record(env, seed, policy) for seed in SEEDS] for name, policy in policies.items()
    }
    assert all(e.success for e in found["success"]) and not any(
        e.success for e in found["failure"] + found["still"]
    )
    return found


def totals(parts: list[RewardInputs], similarity, **config) -> Tensor:
    """The reward of each episode (E,), all scored together."""
    reward = RewardConfig(similarity=similarity, **config).build(MAX_CHUNKS)
    scored, won, episode = together(parts)
    return torch.zeros(len(parts)).index_add_(0, episode, reward(scored, won, episode))


def raw(parts: list[RewardInputs], similarity, mode: str = "composite") -> Tensor:
    """Before normalisation, of the chunks with a verifiable frame."""
    scored, _, _ = together(parts)
    return (
        RewardConfig(similarity=similarity, mode=mode)
        .build(MAX_CHUNKS)
        .raw(scored)[scored.verifiable.any(1)]
    )


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (C, F, V, H, W, 3); sigma in px."""
    t = torch.arange(-int(3 * sigma), int(3 * sigma) + 1)
    weight = torch.exp(-(t**2) / (2 * sigma**2))
    y = x.flatten(0, 2).permute(0, 3, 1, 2)
    for kernel in (weight.view(1, 1, 1, -1), weight.view(1, 1, -1, 1)):
        pad = [n // 2 for n in (kernel.shape[3],) * 2 + (kernel.shape[2],) * 2]
        y = torch.nn.functional.pad(y, pad, mode="reflect")
        y = torch.nn.functional.conv2d(y, (kernel / weight.sum()).expand(3, 1, -1, -1), groups=3)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:3])


# --- standing still


@every
@pytest.mark.parametrize("failures_only", [False, True])
def test_standing_still_does_not_beat_success(similarity, failures_only):
    """Those who stay are imagined perfectly, those who succeed as badly as can be."""
    good, still = episodes()["success"], episodes()["still"]
    worst = [e.scored(1 - e.seen()) for e in good]
    total = totals(
        worst + [e.scored() for e in still], similarity, shaping=0.49, failures_only=failures_only
    )
    won, stayed = total.split(len(good))
    assert won.min() > stayed.max() and won.min() > 0.5 > stayed.max()


@every
def test_standing_still_as_imagined_earns_nothing(similarity):
    """But the paper's reward prefers it to a success that was imagined well,
    not perfectly: hence the composite.
    """
    good = [e.scored(e.seen(-1)) for e in episodes()["success"]]  # imagined one step late
    still = [e.scored() for e in episodes()["still"]]
    assert (raw(still, similarity) == 0).all() and raw(good, similarity).mean() > 0
    assert raw(still, similarity, "paper").mean() > raw(good, similarity, "paper").mean()
    shaping = totals(good + still, similarity, shaping=0.4) - torch.tensor(
        [1.0] * len(good) + [0.0] * len(still)
    )
    per_chunk = torch.tensor([len(s.success) for s in good + still])
    moved, stayed = (shaping / per_chunk).split(len(good))
    assert moved.mean() > stayed.mean()


@every
def test_standing_still_while_motion_was_imagined_is_punished(similarity):
    """The world model imagines the expert's way; who does not go loses against the copy."""
    good, still = episodes()["success"], episodes()["still"]
    imagined = [
        torch.cat([g.seen(), s.seen()])[: len(s.seen())] for g, s in zip(good, still, strict=True)
    ]
    first = [raw([s.scored(i)], similarity)[0] for s, i in zip(still, imagined, strict=True)]
    assert torch.stack(first).max() < 0


# --- resting


@every
def test_rest_that_was_imagined_is_ranked_below_a_badly_imagined_success(similarity):
    good, still = episodes()["success"], [e.scored() for e in episodes()["still"]]
    for imagined in (lambda e: e.seen(-4), lambda e: 1 - e.seen()):
        parts = [e.scored(imagined(e)) for e in good] + still
        won, lost = totals(parts, similarity, mode="paper").split(len(good))
        assert won.min() > lost.max()
        won, lost = totals(parts, similarity, mode="paper", paper_scale="centred").split(len(good))
        assert won.max() < 0 < lost.min()  # it earned more the longer it rested


# --- failing as imagined


@every
def test_a_faithfully_imagined_failure_is_ranked_below_a_success(similarity):
    good, bad = episodes()["success"], episodes()["failure"]
    faithful, late = [e.scored() for e in bad], [e.scored(e.seen(-4)) for e in good]
    for parts, failures_only in ((late, False), ([e.scored(1 - e.seen()) for e in good], True)):
        won, lost = totals(
            parts + faithful, similarity, shaping=0.49, failures_only=failures_only
        ).split(len(good))
        assert won.min() > lost.max()
    paper = totals(late + faithful, similarity, mode="paper", paper_scale="centred")
    won, lost = paper.split(len(good))
    assert lost.mean() > won.mean()  # the paper's reward ranks them the other way


# --- blur


@every
def test_blur_does_not_pay(similarity):
    """Every blur costs, the stronger the more;
    a right imagination is the best, also where blur helps a wrong one.
    """
    good = episodes()["success"]
    right = raw([e.scored() for e in good], similarity)
    blurs = [
        raw([e.scored(blurred(e.seen(), s)) for e in good], similarity)
        for s in (0.5, 1.0, 2.0, 4.0)
    ]
    for x in blurs:
        assert (x <= right).all()
    means = [x.mean() for x in (right, *blurs)]
    assert all(a > b for a, b in zip(means, means[1:], strict=False))
    # at 1 px about half of the gain is gone, and at 2 px a copy is better
    assert means[2] < 0.6 * means[0]
    assert means[3] < 0
    for late in (-1, -2, -4):
        sharp = raw([e.scored(e.seen(late)) for e in good], similarity)
        soft = raw([e.scored(blurred(e.seen(late), 1.0)) for e in good], similarity)
        assert soft.mean() < sharp.mean() < right.mean()


# --- the same on a simulated robot


@cache
def robot() -> dict[str, list[Recorded]]:
    env = MetaWorldConfig(task="button-press").build()
    policies = {
        "success": lambda env: env.expert().action(),
        "failure": lambda env: -env.expert().action(),
    }
    try:
        found = {
            name: [record(env, seed, policy) for seed in (0, 1)]
            for name, policy in policies.items()
        }
    finally:
        env.close()
    assert all(e.success for e in found["success"]) and not any(e.success for e in found["failure"])
    return found


@pytest.mark.parametrize("similarity", SIMILARITIES[:2], ids=lambda c: c.name)
def test_a_robot_that_fails_as_imagined_is_ranked_below_one_that_succeeds(similarity):
    good, bad = robot()["success"], robot()["failure"]
    chunks = max(len(e.chunks) for e in good + bad)
    scored, won, episode = together(
        [e.scored(1 - e.seen()) for e in good] + [e.scored() for e in bad]
    )
    reward = RewardConfig(similarity=similarity, shaping=0.49).build(chunks)(scored, won, episode)
    total = torch.zeros(4).index_add_(0, episode, reward)
    assert total[:2].min() > total[2:].max()
    right = raw([e.scored() for e in good], similarity)
    soft = raw([e.scored(blurred(e.seen(), 1.0)) for e in good], similarity)
    assert right.mean() > soft.mean() and (soft <= right).all()
