"""Data from which little or nothing can be learned: no crash, no NaN; a half that has nothing to
learn from is left as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from tests.support import tiny
from wamrl.config import Config
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import DemoConfig, collect
from wamrl.data.recording import Episode, InMemory
from wamrl.online.state import TrainingState
from wamrl.rewards.base import Similarity
from wamrl.rewards.pixels import PixelConfig, PixelMSE
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.sft import SFT
from wamrl.train import iterate

NOTHING = {"radius": 0.01, "horizon": 16}  # nobody reaches the goal
EVERYTHING = {"radius": 9.0, "horizon": 16}  # it is reached by the first step
PPO = replace(tiny.CONFIG.train.learner, gamma=1.0, lam=1.0)
LEARNERS = {"ppo": PPO, "grpo": GRPOConfig(epochs=2, batch=16)}
SUCCESS = RewardConfig(mode="success")
ALONE = InitialStatesConfig(group=1)


class Constant(PixelMSE):
    """Everything is as far from everything."""

    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        return torch.full(a.shape[:2], 0.25)


@dataclass(frozen=True, kw_only=True)
class ConstantConfig(PixelConfig):
    def build(self) -> Similarity:
        return Constant()


def config(env: dict, model: dict | None = None, flow: dict | None = None, **train) -> Config:
    cfg = replace(tiny.train_config(**train), env=replace(tiny.ENV, **env))
    cfg = replace(cfg, model=replace(cfg.model, **(model or {})))
    return replace(cfg, flow=replace(cfg.flow, **(flow or {})))


# name -> configuration, what may move: "policy", "world"; of everything else all stays
CASES = {
    f"all {outcome}, {name}": (
        config(env, learner=learner, reward=SUCCESS, learn=("policy", "world")),
        moves,
    )
    for outcome, env, moves in (("failed", NOTHING, ""), ("succeeded", EVERYTHING, "world"))
    for name, learner in LEARNERS.items()
}
CASES |= {
    "constant reward": (
        config(NOTHING, learner=PPO, reward=RewardConfig(similarity=ConstantConfig())),
        "",
    ),
    "constant paper reward": (
        config(
            NOTHING,
            learner=PPO,
            reward=RewardConfig(mode="paper", similarity=ConstantConfig()),
        ),
        "policy",  # it lies there over more or fewer chunks of an episode
    ),
    "group of one": (config({}, initial_states=ALONE), "policy world"),
    "one episode": (config({}, groups=1, initial_states=ALONE), "policy world"),
    "one step of denoising": (config({}, flow={"steps": 1}), "policy world"),
    "one action, one frame": (
        config({}, model={"chunk": 1, "frame_offsets": (1,)}),
        "policy world",
    ),
    "empty buffer": (
        config(
            NOTHING, world=WorldUpdateConfig(steps=2, batch=8, demo_share=0.5), learn=("world",)
        ),
        "",
    ),
    "nothing but demonstrations": (
        config(
            NOTHING, world=WorldUpdateConfig(steps=2, batch=8, demo_share=1.0), learn=("world",)
        ),
        "world",
    ),
    "a buffer of one clip": (
        config({}, world=WorldUpdateConfig(steps=2, batch=8, capacity=1)),
        "policy world",
    ),
}


@cache
def recorded() -> list[Episode]:
    return collect(DemoConfig(env=tiny.ENV, episodes=6, n_workers=0))


@pytest.mark.parametrize("name", CASES)
def test_an_iteration(name):
    cfg, moves = CASES[name]
    model = cfg.model
    demos = ClipDataset(
        InMemory(recorded()),
        model.history_offsets,
        model.frame_offsets,
        model.chunk,
    )
    state = TrainingState(cfg, tiny.lively(model=model), demos, 40)
    halves = {"policy": state.wam.actor, "world": state.wam.world}
    before = {half: tiny.snapshot(module) for half, module in halves.items()}
    with cfg.build_pool() as pool:
        metrics = [iterate(state, pool)[0] for _ in range(2)]
    for half, module in halves.items():
        assert bool(tiny.changed(module, before[half])) <= (half in moves), half
    state.require_finite()
    found = [(name, value) for row in metrics for name, value in row.items()]
    bad = {name for name, value in found if not math.isfinite(value)}
    unseen = ("diag/", "world/copy_ratio/")  # of an outcome or a frame that nobody has seen
    assert not {name for name in bad if not name.startswith(unseen)}


def test_a_group_of_one_has_nobody_to_be_compared_with():
    cfg = config({}, learner=LEARNERS["grpo"], initial_states=ALONE)
    with pytest.raises(ValueError, match="group"):
        cfg.validate()


def test_one_short_demonstration():
    """Shorter than the first frame that is imagined: nothing of its video can be learned."""
    episode = recorded()[0]
    short = replace(
        episode,
        frames=episode.frames[:3],
        proprio=episode.proprio[:3],
        actions=episode.actions[:2],
        executed=episode.executed[:2],
    )
    m = tiny.MODEL
    clips = ClipDataset(InMemory([short]), m.history_offsets, m.frame_offsets, m.chunk)
    wam = tiny.fresh()
    wam.normalize.fit(*clips.statistics())
    state = SFT(wam, tiny.CONFIG.sft, 0)
    metrics = state.step(clips.sample)
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(weight.isfinite().all() for weight in state.average.state_dict().values())
