"""Wan as a world model: the WanTransformer3DModel of diffusers.

The past at noise level 0 beside a future at sigma is what Wan2.2-TI2V was trained with. The
timestep is 1000 sigma, token by token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wamrl.models.base import WAMSpec
from wamrl.models.diffusers_world import DiffusersWorld, DiffusersWorldConfig, Past
from wamrl.runtime.ranges import Size


@dataclass(frozen=True, kw_only=True)
class WanConfig(DiffusersWorldConfig):
    """By default the sizes of Wan2.1-T2V-1.3B. Published `shift`: 3 to 5."""

    network: ClassVar[str] = "WanTransformer3DModel"

    hidden: Size = 8960  # of the feed-forward layers
    frequencies: Size = 256  # of the noise level's embedding

    def sizes(self) -> dict[str, Any]:
        """What the library's class is made with."""
        return {
            "patch_size": (1, self.patch, self.patch),
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_width,
            "in_channels": self.latent.channels,
            "out_channels": self.latent.channels,
            "text_dim": self.text_width,
            "freq_dim": self.frequencies,
            "ffn_dim": self.hidden,
            "num_layers": self.depth,
        }

    def fresh(self, network: nn.Module) -> None:
        """Let attention begin with what is near."""
        _look_near(network)

    def build(self, spec: WAMSpec) -> Wan:
        """See `WorldModelConfig`; ValueError where a folder or the spec does not fit."""
        self.validate()
        return Wan(self, spec)


class Wan(DiffusersWorld):
    """See `DiffusersWorld`."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The network's, in order."""
        return self.transformer.blocks

    def velocity(self, clip: Tensor, levels: Tensor, context: Past) -> Tensor:
        """See `DiffusersWorld`."""
        cells = clip.shape[3] * clip.shape[4] // self.cfg.patch**2
        (velocity,) = self.transformer(
            clip.movedim(1, 2),
            1000 * levels.repeat_interleave(cells, 1),
            context.said,
            return_dict=False,
        )
        return velocity.movedim(2, 1)


@torch.no_grad()
def _look_near(network: nn.Module) -> None:
    """Let the attention of a fresh network begin with what is close in the picture.

    Positions are rotations only, and tokens of noise say nothing of where they are: from the
    library's own start the network needs far longer to find its place in the past. Queries and
    keys get a constant in the fastest rotations of height and width, so their product falls with
    the distance.
    """
    rope = network.rope
    fastest = [rope.t_dim, rope.t_dim + rope.h_dim]
    for block in network.blocks:
        for layer in (block.attn1.to_q, block.attn1.to_k):
            bias = layer.bias.view(block.attn1.heads, -1)
            bias.zero_()
            for first in fastest:
                bias[:, first : first + 2] = 2.0
