"""A world model of your own: a small convolutional U-Net on pixels, 0.5 M parameters.

It imagines how the next frames differ from the last one, so its latents mean nothing without the
past: `to_frames` adds them to the last frame, which the context holds.
docs/own-model.md walks through this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.config import Config
from wamrl.models.base import WAMSpec, WorldModelConfig
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.layers import TextEmbedding, sinusoid
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.point import point
from wamrl.types import Obs

SHRINK = 4  # pixels of the frame per cell of the coarse map, along each side


@dataclass(frozen=True, kw_only=True)
class UNetConfig(WorldModelConfig):
    width: int = 64  # channels of the coarse map, and the features' D
    blocks: int = 2  # each is a tap

    @property
    def tap_names(self) -> tuple[str, ...]:
        return tuple(f"block{i}" for i in range(self.blocks))

    def validate(self) -> None:
        if self.width < 2 or self.width % 2 or self.blocks < 1:
            raise ValueError(f"u-net: an even width >= 2 and blocks >= 1 are needed, got {self}")

    def build(self, spec: WAMSpec) -> UNet:
        self.validate()
        return UNet(self, spec)


@dataclass(frozen=True, kw_only=True)
class Past:
    """The context: what B observations leave for every later call."""

    frames: Tensor  # float32 (B, T * C, H, W) in [-1, 1], C = 3 colours of every view
    last: Tensor  # float32 (B, 1, C, H, W), the present frame
    state: Tensor  # (B, D) instruction and proprioception, embedded


class Block(nn.Module):
    """Two convolutions, with the state and the noise level added in between."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.given = nn.Linear(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """x (B, D, h, w), given (B, D)."""
        hidden = F.silu(self.first(x)) + self.given(given)[:, :, None, None]
        return x + self.second(F.silu(hidden))


class UNet(FlowWorldModel):
    def __init__(self, cfg: UNetConfig, spec: WAMSpec):
        super().__init__()
        h, w = spec.image_hw
        if h % SHRINK or w % SHRINK:
            raise ValueError(f"u-net: {h} x {w} frames; give sides that {SHRINK} divides")
        colours = 3 * spec.views
        future = len(spec.frame_offsets)
        past = len(spec.history_offsets)
        self.spec = spec
        self.feature_dim = cfg.width
        self.latent_shape = (future, colours, h, w)
        self.text = TextEmbedding(cfg.width)
        self.proprio = nn.Linear(spec.proprio_dim, cfg.width)
        self.level = nn.Linear(cfg.width, cfg.width)
        self.stem = nn.Conv2d((past + future) * colours, cfg.width // 2, 3, padding=1)
        self.down = nn.Conv2d(cfg.width // 2, cfg.width, SHRINK, stride=SHRINK)
        self.place = nn.Parameter(torch.randn(1, cfg.width, h // SHRINK, w // SHRINK) * 0.1)
        self.blocks = nn.ModuleList(Block(cfg.width) for _ in range(cfg.blocks))
        self.up = nn.ConvTranspose2d(cfg.width, cfg.width // 2, SHRINK, stride=SHRINK)
        self.head = nn.Conv2d(cfg.width, future * colours, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # an untrained model imagines the last frame
        nn.init.zeros_(self.head.bias)

    def encode(self, obs: Obs) -> Past:
        frames = self._pixels(obs.frames)
        state = self.text(obs.text) + self.proprio(obs.proprio)
        return Past(frames=frames.flatten(1, 2), last=frames[:, -1:], state=state)

    def predict(self, z: Tensor, sigma: Tensor, context: Past) -> tuple[Tensor, Tensor]:
        level = sigma.view(-1, 1, 1, 1, 1)
        seen = (1 - level) * z  # of pure noise nothing, so that features do not wobble with it
        fine = F.silu(self.stem(torch.cat([context.frames, seen.flatten(1, 2)], 1)))
        coarse = F.silu(self.down(fine)) + self.place
        given = context.state + self.level(sinusoid(sigma, self.feature_dim))
        taps = []
        for block in self.blocks:
            coarse = block(coarse, given)
            taps.append(coarse)
        both = torch.cat([fine, F.silu(self.up(coarse))], 1)
        difference = self.head(both).view_as(z)
        velocity = (z - difference) / level.clamp(min=1e-3)
        features = torch.stack(taps, 1).flatten(3).transpose(2, 3)  # (B, taps, h * w, D)
        return velocity, features

    def to_latents(self, future: Tensor, context: Past) -> Tensor:
        return self._pixels(future) - context.last

    def to_frames(self, z: Tensor, context: Past) -> Tensor:
        x = (context.last + z + 1) / 2
        x = x.clamp(0, 1).unflatten(2, (self.spec.views, 3))
        return x.movedim(3, -1)  # (B, F, V, H, W, 3)

    def _pixels(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, V, H, W, 3) to float32 (B, T, C, H, W) in [-1, 1]."""
        return (frames.float() / 127.5 - 1).movedim(-1, 3).flatten(2, 3)


def unet() -> Config:
    """The point mass, with this world model before the built-in actor."""
    cfg = point()
    model = WAMConfig(
        world=UNetConfig(),
        actor=cfg.model.actor,
        frame_offsets=cfg.model.frame_offsets,
        chunk=cfg.model.chunk,
    )
    return replace(cfg, name="unet", model=model)
