"""The point mass: no simulator, seconds on one core. CI runs every verb on it."""

from __future__ import annotations

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.point import PointConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.pool.pool import PoolConfig
from wamrl.recipes.rewards import ALL
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.sft import SFTConfig


def point() -> Config:
    """A tiny model on the point mass: every verb in seconds, to try things and for tests."""
    return Config(
        name="point",
        env=PointConfig(),
        model=WAMConfig(
            world=VideoDiTConfig(width=64, depth=3, heads=4, patch=8, taps=(1, 3)),
            actor=ActionHeadConfig(width=64),
            frame_offsets=(4, 8),
            chunk=8,
        ),
        data=DataConfig(episodes=20, heldout=6),
        sft=SFTConfig(steps=150, batch=32),
        train=TrainConfig(iterations=3, groups=16, initial_states=InitialStatesConfig(group=2)),
        rewards=RewardComparisonConfig(similarities=ALL),
        eval=EvalConfig(episodes=50),
        pool=PoolConfig(n_envs=16),
    )
