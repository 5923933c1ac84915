"""Cosmos-Predict2 as a world model: the CosmosTransformer3DModel of diffusers.

What it gives is the velocity eps - x at x_s = (1 - s) x + s eps and the timestep s, which is what
the library's pipeline makes of it by its c_in, c_skip and c_out. Each frame has its noise level.
Two more channels go in: which frames are given (`conditioned`), and padding, of which there is
none. The library would resize the latter by torchvision; here it is a channel like the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from wamrl.models.base import WAMSpec
from wamrl.models.diffusers_world import DiffusersWorld, DiffusersWorldConfig, Past
from wamrl.runtime.ranges import Count, Positive, Size

Scale = Annotated[float, Gt(0), Le(100)]


@dataclass(frozen=True, kw_only=True)
class CosmosConfig(DiffusersWorldConfig):
    """By default the sizes of Cosmos-Predict2-2B-Video2World, behind Wan 2.1's VAE."""

    network: ClassVar[str] = "CosmosTransformer3DModel"

    heads: Size = 16
    depth: Annotated[int, Ge(1), Le(256)] = 28
    text_width: Size = 1024
    taps: tuple[Count, ...] = (9, 18, 28)
    widening: Positive = 4.0  # of the feed-forward layers
    modulation: Size = 256  # rank of the noise level's modulation
    largest: tuple[Size, Size, Size] = (128, 240, 240)  # clip of latents: frames, height, width
    rotation_scale: tuple[Scale, Scale, Scale] = (1.0, 3.0, 3.0)
    conditioned: bool = True  # False: Text2Image, which is not told which frames are given
    frame_rate: Positive = 16.0  # frames a second that the network is told

    def sizes(self) -> dict[str, Any]:
        """What the library's class is made with."""
        return {
            "in_channels": self.latent.channels + self.conditioned + 1,
            "out_channels": self.latent.channels,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_width,
            "num_layers": self.depth,
            "mlp_ratio": self.widening,
            "text_embed_dim": self.text_width,
            "adaln_lora_dim": self.modulation,
            "max_size": self.largest,
            "patch_size": (1, self.patch, self.patch),
            "rope_scale": self.rotation_scale,
            "concat_padding_mask": False,
            "extra_pos_embed_type": None,
        }

    def said(self, config: dict[str, Any]) -> dict[str, Any]:
        """With the channel of padding among those that go in."""
        if not config.get("concat_padding_mask"):
            return config
        more = {"in_channels": config["in_channels"] + 1, "concat_padding_mask": False}
        return config | more

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        super().validate()
        thirds = [self.head_width // 6 * 2] * 2
        if self.head_width - sum(thirds) < 4 or thirds[0] < 4:
            raise ValueError(
                f"model.world: head_width={self.head_width} must be 12 or more: time, height and "
                "width share its rotations"
            )

    def build(self, spec: WAMSpec) -> Cosmos:
        """See `WorldModelConfig`; ValueError where a folder or the spec does not fit."""
        self.validate()
        return Cosmos(self, spec)


class Cosmos(DiffusersWorld):
    """See `DiffusersWorld`."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The network's, in order."""
        return self.transformer.transformer_blocks

    def velocity(self, clip: Tensor, levels: Tensor, context: Past) -> Tensor:
        """See `DiffusersWorld`."""
        x = clip.movedim(1, 2)
        channels = [x]
        if self.cfg.conditioned:
            given = torch.zeros_like(x[:, :1])
            given[:, :, : context.z.shape[1]] = 1
            channels.append(given)
        channels.append(torch.zeros_like(x[:, :1]))  # no padding
        (velocity,) = self.transformer(
            torch.cat(channels, 1),
            levels[:, None, :, None, None],
            context.said,
            fps=self.cfg.frame_rate,
            return_dict=False,
        )
        return velocity.movedim(2, 1)
