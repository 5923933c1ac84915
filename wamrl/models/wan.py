"""Wan as a world model: the WanTransformer3DModel of diffusers, fresh or from a local folder.

Past and future latents are one clip. Each token has its own noise level: those of the past stand at
sigma 0, those of the future at sigma, as in Wan2.2-TI2V. What the blocks attend to across is the
instruction and the robot's state. The network's velocity is used as it is: v = eps - x at the
timestep 1000 sigma.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from wamrl.models.base import WAMSpec, WorldModelConfig
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.latent import (
    LatentConfig,
    VAEConfig,
    folder_digest,
    load_pretrained,
    pretrained_folder,
)
from wamrl.models.layers import TextEmbedding, mlp, zero_
from wamrl.models.lora import LoRAConfig, add_adapters, frozen_weights
from wamrl.models.text import TextFile
from wamrl.runtime.ranges import Count, Fraction, Size, check_ranges
from wamrl.types import Obs

CLASS = "WanTransformer3DModel"
_SMALL = 128  # what instruction and robot state go through before they are text_width wide


@dataclass(frozen=True, kw_only=True)
class WanConfig(WorldModelConfig):
    """By default the sizes of Wan2.1-T2V-1.3B."""

    latent: LatentConfig = field(default_factory=VAEConfig)
    pretrained: str = ""  # a local folder of the transformer, safetensors; "": fresh weights
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    # a file of `wamrl embed`, instruction -> (L, text_width): what Wan's text encoder said of each;
    # "": a small embedding that learns
    text: str = ""

    heads: Size = 12
    head_width: Annotated[int, Ge(6), Le(1024)] = 128
    depth: Annotated[int, Ge(1), Le(256)] = 30
    hidden: Size = 8960  # of the feed-forward layers
    text_width: Size = 4096
    frequencies: Size = 256  # of the noise level's embedding
    patch: Annotated[int, Ge(1), Le(64)] = 2  # latents per token, along each side of the picture
    taps: tuple[Count, ...] = (10, 20, 30)  # 1-based blocks whose outputs the actor reads

    feature_sigma: Fraction = 1.0
    noise_fraction: Fraction = 0.3  # of the training noise levels are exactly 1
    shift: Annotated[float, Gt(0), Le(100)] = 1.0  # of the imagination's time grid; Wan: 3 to 5
    # activations of the blocks in the backward pass: more arithmetic, far less memory
    recompute: bool = False

    @property
    def width(self) -> int:
        """Channels of a token, the features' D."""
        return self.heads * self.head_width

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The tapped blocks: "block10" and so on."""
        return tuple(f"block{i}" for i in self.taps)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world")
        self.latent.validate()
        self.lora.validate()
        if self.head_width % 2:
            raise ValueError(
                f"model.world: head_width={self.head_width} must be even: positions are rotations"
            )
        ascending = list(self.taps) == sorted(set(self.taps))
        if not self.taps or not ascending or self.taps[-1] > self.depth:
            raise ValueError(
                f"model.world: taps={self.taps} is not possible: name blocks of 1..{self.depth}, "
                "ascending"
            )

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

    def build(self, spec: WAMSpec) -> Wan:
        """See `WorldModelConfig`; ValueError where a folder or the spec does not fit."""
        self.validate()
        return Wan(self, spec)


@dataclass(frozen=True, kw_only=True)
class Past:
    """The context of B observations."""

    frames: Tensor  # uint8 (B, T, V, H, W, 3): what follows is encoded together with it
    z: Tensor  # float32 (B, m, C, h, w), their latents
    said: Tensor  # (B, L, text_width) instruction and robot state


class Wan(FlowWorldModel):
    """The model described above. Its latents are those of the imagined frames, (n, C, h, w)."""

    sigma_floor = 1e-3  # the network predicts the velocity itself: all noise levels count alike

    def __init__(self, cfg: WanConfig, spec: WAMSpec):
        super().__init__()
        self.cfg = cfg
        self.spec = spec
        self.feature_dim = cfg.width
        self.noise_fraction = cfg.noise_fraction
        self.shift = cfg.shift
        self.latents = cfg.latent.build()
        self.latent_shape = self._latent_shape()
        n, _, h, w = self.latent_shape
        cells = h * w // cfg.patch**2
        self.present = slice(-(n + 1) * cells, -n * cells)  # of the tokens; the last past latents
        self.transformer, of_network = _transformer(cfg)
        if cfg.recompute:
            self.transformer.enable_gradient_checkpointing()
        self.text = TextFile(cfg.text, cfg.text_width) if cfg.text else SmallText(cfg.text_width)
        self.state = mlp(spec.proprio_dim, _SMALL, cfg.text_width)
        zero_(self.state[2])  # a pretrained network begins without noise from what it never saw
        # of all that is frozen and in no checkpoint
        digest = self.latents.digest + of_network + getattr(self.text, "digest", b"")
        self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))

    def __deepcopy__(self, memo: dict) -> Wan:
        """Copies share the weights that never learn."""
        for _, weight in frozen_weights(self.transformer):
            memo[id(weight)] = weight
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def encode(self, obs: Obs) -> Past:
        """See `WorldModel`."""
        words = self.text(obs.text)
        state = self.state(obs.proprio)[:, None]
        said = torch.cat([words.to(state), state], 1)
        return Past(frames=obs.frames, z=self.latents.encode(obs.frames), said=said)

    def predict(self, z: Tensor, sigma: Tensor, context: Past) -> tuple[Tensor, Tensor]:
        """See `FlowWorldModel`: features are all tokens of past and future after each tap."""
        m = context.z.shape[1]
        n = z.shape[1]
        clip = torch.cat([context.z, z], 1)
        levels = torch.cat([z.new_zeros(len(z), m), sigma[:, None].expand(-1, n)], 1)
        cells = z.shape[3] * z.shape[4] // self.cfg.patch**2
        with _outputs([self.transformer.blocks[i - 1] for i in self.cfg.taps]) as taps:
            (velocity,) = self.transformer(
                clip.movedim(1, 2),
                1000 * levels.repeat_interleave(cells, 1),
                context.said,
                return_dict=False,
            )
        return velocity.movedim(2, 1)[:, m:], torch.stack(taps, 1)

    def to_latents(self, future: Tensor, context: Past) -> Tensor:
        """See `FlowWorldModel`: encoded after the past, as one clip."""
        clip = torch.cat([context.frames, future], 1)
        return self.latents.encode(clip)[:, context.z.shape[1] :]

    def to_frames(self, z: Tensor, context: Past) -> Tensor:
        """See `FlowWorldModel`: decoded after the past, as one clip."""
        clip = torch.cat([context.z, z], 1)
        return self.latents.decode(clip, self.spec.views)[:, context.frames.shape[1] :]

    def latent_mask(self, future_mask: Tensor) -> Tensor:
        """A latent counts where all its frames are real: (B, F) -> (B, n)."""
        return future_mask.unflatten(1, (-1, self.cfg.latent.group)).all(2)

    def _latent_shape(self) -> tuple[int, ...]:
        """Of the imagined frames. ValueError of one sentence where the spec does not fit."""
        spec = self.spec
        past = len(spec.history_offsets)
        whole = past + len(spec.frame_offsets)
        before = self.latents.count(past)
        n, channels, h, w = self.latents.shape(whole, spec.views, spec.image_hw)
        patch = self.cfg.patch
        if h % patch or w % patch:
            raise ValueError(
                f"the latents are {h} x {w}, which patches of {patch} do not divide: change the "
                "environment's image size or --model.world.patch"
            )
        return (n - before, channels, h, w)

    def _load_from_state_dict(self, state, prefix, meta, strict, missing, unexpected, errors):
        """What was trained beside another VAE or other frozen weights does not fit."""
        saved = state.get(f"{prefix}digest")
        if saved is not None and not torch.equal(saved.cpu(), self.digest.cpu()):
            errors.append(
                "it was trained with another VAE, other embedded instructions or other weights "
                "below its adapters: put back what was in the folders of then (model.world)"
            )
        super()._load_from_state_dict(state, prefix, meta, strict, missing, unexpected, errors)


class SmallText(nn.Module):
    """Hashed words, embedded and projected: nothing to download. It learns."""

    def __init__(self, width: int):
        super().__init__()
        self.words = TextEmbedding(_SMALL)
        self.project = nn.Linear(_SMALL, width)

    def forward(self, text: tuple[str, ...]) -> Tensor:
        """B instructions -> (B, 1, text_width)."""
        return self.project(self.words(text))[:, None]


def _transformer(cfg: WanConfig) -> tuple[nn.Module, bytes]:
    """Fresh, or from its folder; and the digest of what adapters leave as it is.

    ValueError of one sentence where the folder's is of other sizes, or adapters have none.
    """
    import diffusers

    sizes = cfg.sizes()
    meta = torch.get_default_device().type == "meta"
    digest = b""
    if meta or not (cfg.pretrained or cfg.lora.rank):
        network = diffusers.WanTransformer3DModel(**sizes)
        _look_near(network)
    else:
        option = "model.world.pretrained"
        folder, config = pretrained_folder(cfg.pretrained, "transformer", option, (CLASS,))
        _require_sizes(config, sizes, folder)
        network = load_pretrained(folder, CLASS)
        digest = folder_digest(folder, config) if cfg.lora.rank else b""
    if cfg.lora.rank:
        add_adapters(network, cfg.lora)
    return network, digest


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


def _require_sizes(config: dict[str, Any], sizes: dict[str, Any], folder: Path) -> None:
    for name, value in sizes.items():
        found = tuple(config[name]) if name == "patch_size" else config.get(name)
        if found != value:
            raise ValueError(
                f"the transformer in {folder} has {name}={found}, model.world says {value}: take "
                "the recipe of its size, or set model.world to it"
            )


@contextlib.contextmanager
def _outputs(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """What these modules give within the block, in the order of their calls.

    The hooks are gone afterwards: a copy of the model would otherwise write into the original.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        found.append(output)

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
