"""A run that is as small as it can be and still has every part that `wamrl plan` looks at."""

from __future__ import annotations

from dataclasses import replace

from tests.support.small_wan import tiny
from wamrl.config import Config
from wamrl.envs.point import PointConfig
from wamrl.pool.pool import PoolConfig
from wamrl.recipes.find import smoke
from wamrl.recipes.wan import wan_point


def small_plan() -> Config:
    """Two blocks of Wan on the point mass."""
    cfg = smoke(replace(wan_point(), model=tiny(), env=PointConfig(image_size=16)))
    train = replace(
        cfg.train,
        learner=replace(cfg.train.learner, batch=8),
        world=replace(cfg.train.world, batch=4, capacity=16),
    )
    return replace(
        cfg,
        name="small-plan",
        sft=replace(cfg.sft, batch=4),
        pool=PoolConfig(n_envs=4),
        train=train,
    )
