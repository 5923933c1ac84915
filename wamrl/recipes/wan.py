"""Wan, a public video model, as the world model. Needs `pip install 'wamrl[diffusers]'`."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config
from wamrl.envs.point import PointConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.latent import PixelsConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.models.wan import WanConfig
from wamrl.recipes.point import point


def wan_point() -> Config:
    """Wan's network at toy size on the point mass, on pixels: no VAE, nothing to download."""
    cfg = point()
    world = WanConfig(
        # of the board, so that what moves has the noise's size
        latent=PixelsConfig(mean=0.33, std=0.25),
        heads=4,
        head_width=24,
        depth=4,
        hidden=384,
        text_width=96,
        patch=4,
        taps=(2, 4),
    )
    model = WAMConfig(
        world=world,
        actor=ActionHeadConfig(width=64),
        frame_offsets=cfg.model.frame_offsets,
        chunk=cfg.model.chunk,
    )
    return replace(cfg, name="wan-point", env=PointConfig(image_size=16), model=model)
