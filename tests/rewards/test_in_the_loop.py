"""Rewards inside `wamrl.train`: every similarity scores a rollout,
and what does not fit is refused.
"""

from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.online.state import TrainingState
from wamrl.rewards.features import DINOv2Config, VJEPA2Config
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.rewards.pixels import PixelConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rollout.metrics import rollout_metrics
from wamrl.rollout.types import Rollout

SIMILARITIES = (
    PixelConfig(),
    OpticalFlowConfig(),
    DINOv2Config(weights=None, size=28),
    VJEPA2Config(weights=None, size=32),
)


def begun(horizon: int = 40, **reward) -> TrainingState:
    cfg = tiny.train_config(reward=RewardConfig(**reward))
    return TrainingState(cfg, tiny.lively(), tiny.demos(), horizon)


def metrics(rollout: Rollout) -> dict[str, float]:
    return rollout_metrics(rollout, torch.ones(len(rollout.starts), dtype=torch.bool))


@pytest.fixture(scope="module")
def rollout():
    with tiny.CONFIG.build_pool() as pool:
        return tiny.explore(tiny.lively(), pool, 8)


@pytest.mark.parametrize("mode", ["paper", "composite"])
@pytest.mark.parametrize("similarity", SIMILARITIES, ids=lambda c: c.name)
def test_every_similarity_scores_a_rollout(similarity, mode, rollout):
    reward = {"similarity": similarity, "mode": mode, "paper_scale": "deviation"}  # far from a copy
    run = begun(**reward)
    found = run.score(rollout, metrics(rollout))
    real = rollout.decisions.verifiable.any(1)
    assert found.shape == (len(rollout.decisions),) and found.isfinite().all()
    assert real.sum() >= 8 and found[real].unique().numel() > real.sum() // 2
    assert torch.equal(found, begun(**reward).score(rollout, metrics(rollout)))
    # no network is checkpointed
    assert run.reward.state_dict().keys() == {"norm.count", "norm.mean", "norm.m2"}


def test_frames_executed_at_other_offsets_are_refused(rollout):
    with pytest.raises(AssertionError, match="cannot be compared"):
        begun().score(replace(rollout, frame_offsets=(4, 7)), metrics(rollout))


def test_episodes_longer_than_the_horizon_are_refused(rollout):
    assert rollout.length.max() > 8
    with pytest.raises(ValueError, match="chunks, but the shaping is bounded for at most 1"):
        begun(horizon=8).score(rollout, metrics(rollout))
