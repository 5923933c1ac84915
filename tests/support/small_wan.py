"""Models with Wan's network at the smallest size that has all its parts."""

from __future__ import annotations

import torch

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.latent import LatentConfig, PixelsConfig
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.models.wan import WanConfig

SMALL = {"heads": 2, "head_width": 12, "depth": 2, "hidden": 32, "text_width": 16, "taps": (1, 2)}


def tiny(latent: LatentConfig | None = None, frames: int = 4, **world) -> WAMConfig:
    """Two blocks of width 24."""
    return WAMConfig(
        world=WanConfig(latent=latent or PixelsConfig(), frequencies=16, **(SMALL | world)),
        actor=ActionHeadConfig(width=16, heads=2),
        frame_offsets=tuple(range(2, 2 * frames + 1, 2)),
        chunk=2 * frames,
    )


def build(cfg: WAMConfig, views: int = 1) -> WAM:
    torch.manual_seed(0)
    return cfg.build(views=views, image_hw=(16, 8), action_dim=2, proprio_dim=4)
