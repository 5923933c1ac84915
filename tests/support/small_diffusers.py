"""Models with a public family's network at the smallest size that has all its parts."""

from __future__ import annotations

import torch

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.cosmos import CosmosConfig
from wamrl.models.diffusers_world import DiffusersWorldConfig
from wamrl.models.latent import PixelsConfig
from wamrl.models.ltx import LTXConfig
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig

SMALL = {"heads": 2, "head_width": 12, "depth": 2, "text_width": 16, "taps": (1, 2), "patch": 2}


def small(family: str, **world) -> DiffusersWorldConfig:
    """Two blocks of width 24."""
    options = {"latent": PixelsConfig(), **SMALL, **world}
    if family == "ltx":
        return LTXConfig(**options)
    return CosmosConfig(modulation=8, largest=(8, 16, 32), **options)


def model(world: DiffusersWorldConfig) -> WAMConfig:
    """With an actor, four imagined frames and eight actions."""
    actor = ActionHeadConfig(width=16, heads=2)
    return WAMConfig(world=world, actor=actor, frame_offsets=(2, 4, 6, 8), chunk=8)


def built(family: str, views: int = 1, **world) -> WAM:
    """For two views or one of 16 x 8 pixels, from a seed."""
    torch.manual_seed(0)
    cfg = model(small(family, **world))
    return cfg.build(views=views, image_hw=(16, 8), action_dim=2, proprio_dim=4)
