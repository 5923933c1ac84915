"""One transformer that denoises video and actions. Needs nothing but the core."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config
from wamrl.envs.point import PointConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.joint import JointActorConfig, JointConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.metaworld import online
from wamrl.recipes.point import point
from wamrl.sft import SFTConfig


def joint_point() -> Config:
    """Video and actions as tokens of one small transformer, on the point mass."""
    cfg = point()
    model = WAMConfig(
        world=JointConfig(width=64, depth=4, heads=4, patch=8),
        actor=JointActorConfig(),
        frame_offsets=cfg.model.frame_offsets,
        chunk=cfg.model.chunk,
    )
    train = online(iterations=32)
    return replace(
        cfg,
        name="joint-point",
        env=PointConfig(image_size=16),
        model=model,
        data=replace(cfg.data, episodes=100),
        sft=SFTConfig(steps=1500),
        # by the decoder alone the policy hardly moves (docs/backbones.md)
        train=replace(
            train,
            learner=replace(train.learner, shared=True),
            world=replace(train.world, shared=True),
        ),
        eval=EvalConfig(episodes=200, every=4, during=50, choose=50),
    )
