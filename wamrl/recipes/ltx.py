"""LTX-Video, a public video model, as the world model. Needs `pip install -e '.[diffusers]'`."""

from __future__ import annotations

from wamrl.config import Config
from wamrl.models.ltx import LTXConfig
from wamrl.recipes.wan import BOARD, on_metaworld, on_point


def ltx_point() -> Config:
    """LTX's network at toy size on the point mass, on pixels: no VAE, nothing to download."""
    world = LTXConfig(
        latent=BOARD,
        heads=3,
        head_width=24,
        depth=3,
        text_width=72,
        patch=4,
        taps=(1, 3),
    )
    # 24 iterations gained 2 points, 60 gained 15 (docs/backbones.md)
    return on_point("ltx-point", world, iterations=60)


def ltx_2b() -> Config:
    """LTX-Video 2B on MetaWorld; untrained so far. Its folders: docs/backbones.md."""
    # its VAE makes one latent of eight frames
    offsets = (2, 4, 6, 8, 10, 12, 14, 16)
    return on_metaworld("ltx-2b", LTXConfig(recompute=True), frame_offsets=offsets, chunk=16)
