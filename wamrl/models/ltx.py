"""LTX-Video as a world model: the LTXVideoTransformer3DModel of diffusers.

Its tokens are patches of latents, laid out by us as the library's pipeline does. The timestep is
1000 sigma, token by token; places are told in seconds and pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from wamrl.models.base import WAMSpec
from wamrl.models.diffusers_world import DiffusersWorld, DiffusersWorldConfig, Past
from wamrl.models.latent import LatentConfig, VAEConfig
from wamrl.runtime.ranges import Count, Positive, Size


@dataclass(frozen=True, kw_only=True)
class LTXConfig(DiffusersWorldConfig):
    """By default the sizes of LTX-Video 2B (0.9), behind its VAE."""

    network: ClassVar[str] = "LTXVideoTransformer3DModel"

    latent: LatentConfig = field(default_factory=lambda: VAEConfig(channels=128, group=8, cell=32))
    heads: Size = 32
    head_width: Annotated[int, Ge(6), Le(1024)] = 64
    depth: Annotated[int, Ge(1), Le(256)] = 28
    patch: Annotated[int, Ge(1), Le(64)] = 1
    taps: tuple[Count, ...] = (9, 18, 28)
    # frames a second that the network is told: its places in time are seconds
    frame_rate: Positive = 25.0

    def sizes(self) -> dict[str, Any]:
        """What the library's class is made with."""
        channels = self.latent.channels * self.patch**2
        return {
            "in_channels": channels,
            "out_channels": channels,
            "patch_size": self.patch,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_width,
            "cross_attention_dim": self.width,
            "num_layers": self.depth,
            "caption_channels": self.text_width,
        }

    def fresh(self, network: nn.Module) -> None:
        """Let attention begin with what is near."""
        _look_near(network, self.latent.cell)

    def build(self, spec: WAMSpec) -> LTX:
        """See `WorldModelConfig`; ValueError where a folder or the spec does not fit."""
        self.validate()
        return LTX(self, spec)


class LTX(DiffusersWorld):
    """See `DiffusersWorld`."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The network's, in order."""
        return self.transformer.transformer_blocks

    def velocity(self, clip: Tensor, levels: Tensor, context: Past) -> Tensor:
        """See `DiffusersWorld`."""
        cfg = self.cfg
        n, _, h, w = clip.shape[1:]
        patch = cfg.patch
        cells = h * w // patch**2
        (velocity,) = self.transformer(
            hidden_states=to_tokens(clip, patch),
            encoder_hidden_states=context.said,
            timestep=1000 * levels.repeat_interleave(cells, 1),
            encoder_attention_mask=context.heard.float(),
            num_frames=n,
            height=h // patch,
            width=w // patch,
            rope_interpolation_scale=(
                cfg.latent.group / cfg.frame_rate,
                cfg.latent.cell,
                cfg.latent.cell,
            ),
            return_dict=False,
        )
        return from_tokens(velocity, clip.shape[1:], patch)


def to_tokens(clip: Tensor, patch: int) -> Tensor:
    """(B, n, C, h, w) -> (B, n h/p w/p, C p p)."""
    x = clip.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))  # (B, n, C, h/p, p, w/p, p)
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def from_tokens(tokens: Tensor, shape: tuple[int, ...], patch: int) -> Tensor:
    """The inverse; shape: (n, C, h, w)."""
    n, channels, h, w = shape
    x = tokens.unflatten(2, (channels, patch, patch))
    x = x.unflatten(1, (n, h // patch, w // patch))  # (B, n, h/p, w/p, C, p, p)
    return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4)


@torch.no_grad()
def _look_near(network: nn.Module, cell: int) -> None:
    """Let the attention of a fresh network begin with what is close in the picture.

    As in Wan (`wan.py`), positions are rotations only. Queries and keys get a constant where a step
    of a token in height or width turns them by a third of a radian to two and a half: slower
    rotations tell neighbours hardly apart, faster ones come round again within the picture.
    """
    rope = network.rope
    count = rope.dim // 6  # rotations, each of time, height and width: a pair of channels
    before = rope.dim % 6  # channels without a place
    slowest = math.pi * rope.patch_size * cell / rope.base_height
    turned = [slowest * rope.theta ** (i / max(1, count - 1)) for i in range(count)]
    heights = [before + 6 * i + 2 for i in range(count) if 0.3 < turned[i] < 2.5]
    for block in network.transformer_blocks:
        for layer in (block.attn1.to_q, block.attn1.to_k):
            layer.bias.zero_()
            for first in heights:
                layer.bias[first : first + 4] = 2.0  # height, then width
