"""Wan, a public video model, as the world model. Needs `pip install -e '.[diffusers]'`."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config
from wamrl.envs.point import PointConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.diffusers_world import DiffusersWorldConfig
from wamrl.models.latent import PixelsConfig, VAEConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.models.wan import WanConfig
from wamrl.recipes.metaworld import online, quickstart
from wamrl.recipes.point import point
from wamrl.sft import SFTConfig

# the board of the point mass: the mean and spread of its pixels, and of their differences
BOARD = PixelsConfig(mean=0.24, std=0.2, change=0.1)


def wan_point() -> Config:
    """Wan's network at toy size on the point mass, on pixels: no VAE, nothing to download."""
    world = WanConfig(
        latent=BOARD,
        heads=3,
        head_width=24,
        depth=3,
        hidden=288,
        text_width=72,
        patch=4,
        taps=(1, 3),
    )
    return on_point("wan-point", world)


def on_point(name: str, world: DiffusersWorldConfig, iterations: int = 24) -> Config:
    """A world model at toy size on the point mass."""
    cfg = point()
    model = WAMConfig(
        world=world,
        actor=ActionHeadConfig(width=64),
        frame_offsets=cfg.model.frame_offsets,
        chunk=cfg.model.chunk,
    )
    return replace(
        cfg,
        name=name,
        env=PointConfig(image_size=16),  # 32 pixels take four times as long
        model=model,
        data=replace(cfg.data, episodes=100),
        # after 500 steps the base is at 10 % and nothing moves (docs/backbones.md)
        sft=SFTConfig(steps=1500),
        train=online(iterations),
        eval=EvalConfig(episodes=200, every=iterations // 6, during=50, choose=50),
    )


def wan21_1b() -> Config:
    """Wan2.1-T2V-1.3B on MetaWorld; untrained so far. Its folders: docs/backbones.md."""
    return on_metaworld("wan21-1b", WanConfig(recompute=True, shift=3.0))


def wan22_5b() -> Config:
    """Wan2.2-TI2V-5B on MetaWorld; untrained so far. Its folders: docs/backbones.md."""
    latent = VAEConfig(channels=48, cell=16)
    world = WanConfig(latent=latent, heads=24, hidden=14336, recompute=True, shift=5.0)
    return on_metaworld("wan22-5b", world)


def on_metaworld(
    name: str,
    world: DiffusersWorldConfig,
    frame_offsets: tuple[int, ...] = (3, 6, 9, 12),
    chunk: int = 12,
) -> Config:
    """One latent of imagined frames after the present one; weights over the GPUs."""
    cfg = quickstart()
    model = WAMConfig(
        world=world,
        actor=ActionHeadConfig(width=768, heads=12, blocks_per_tap=2),
        frame_offsets=frame_offsets,
        chunk=chunk,
        compute="bfloat16",
        feature_dtype="bfloat16",
    )
    update = replace(cfg.train.world, microbatch=1, shard=True)
    return replace(
        cfg,
        name=name,
        env=replace(cfg.env, image_size=256),
        model=model,
        sft=replace(cfg.sft, microbatch=1, shard=True, lr=2e-5),
        train=replace(cfg.train, world=update),
    )
