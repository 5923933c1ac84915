"""A video transformer of diffusers as a world model, fresh or from a local folder.

This is what Wan, LTX and Cosmos share.

Past and future latents are one clip. Each token has its own noise level: those of the past stand at
sigma 0, those of the future at sigma. What the blocks attend to across is the instruction and the
robot's state. The network's velocity is used as it is: v = eps - x. Features are the outputs of the
tapped blocks.

A network of another family is a config with its sizes and a class with its call (`wan.py`).
"""

from __future__ import annotations

import contextlib
import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

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

_SMALL = 128  # what instruction and robot state go through before they are text_width wide


@dataclass(frozen=True, kw_only=True)
class DiffusersWorldConfig(WorldModelConfig):
    """A family's config says its class, its sizes and how it is built."""

    network: ClassVar[str]  # the class of diffusers

    latent: LatentConfig = field(default_factory=VAEConfig)
    pretrained: str = ""  # a local folder of the transformer, safetensors; "": fresh weights
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    # a file of `wamrl embed`, instruction -> (L, text_width): what the network's own text encoder
    # said of each; "": a small embedding that learns
    text: str = ""

    heads: Size = 12
    head_width: Annotated[int, Ge(6), Le(1024)] = 128
    depth: Annotated[int, Ge(1), Le(256)] = 30
    text_width: Size = 4096
    patch: Annotated[int, Ge(1), Le(64)] = 2  # latents per token, along each side of the picture
    taps: tuple[Count, ...] = (10, 20, 30)  # 1-based blocks whose outputs the actor reads

    feature_sigma: Fraction = 1.0
    noise_fraction: Fraction = 0.3  # of the training noise levels are exactly 1
    shift: Annotated[float, Gt(0), Le(100)] = 1.0  # of the imagination's time grid
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

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """What the library's class is made with."""

    def said(self, config: dict[str, Any]) -> dict[str, Any]:
        """A folder's config.json in the words of `sizes`."""
        return config

    def fresh(self, network: nn.Module) -> None:
        """Change the weights that a new network begins with, if the library's do not suit."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """The context of B observations."""

    frames: Tensor  # uint8 (B, T, V, H, W, 3): what follows is encoded together with it
    z: Tensor  # float32 (B, m, C, h, w), their latents
    said: Tensor  # (B, L, text_width) instruction and robot state
    heard: Tensor  # bool (B, L), which of these say something


class DiffusersWorld(FlowWorldModel):
    """The model described above. Its latents are those of the imagined frames, (n, C, h, w)."""

    sigma_floor = 1e-3  # the network predicts the velocity itself: all noise levels count alike

    def __init__(self, cfg: DiffusersWorldConfig, spec: WAMSpec):
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

    def __deepcopy__(self, memo: dict) -> DiffusersWorld:
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
        # the file of instructions is filled up with zeros; the state is heard though it begins as 0
        heard = (words != 0).any(2).to(state.device)
        heard = torch.cat([heard, heard.new_ones(len(heard), 1)], 1)
        z = self.latents.encode(obs.frames)
        return Past(frames=obs.frames, z=z, said=said, heard=heard)

    def predict(self, z: Tensor, sigma: Tensor, context: Past) -> tuple[Tensor, Tensor]:
        """See `FlowWorldModel`: features are all tokens of past and future after each tap."""
        m = context.z.shape[1]
        n = z.shape[1]
        clip = torch.cat([context.z, z], 1)
        levels = torch.cat([z.new_zeros(len(z), m), sigma[:, None].expand(-1, n)], 1)
        with _outputs([self.blocks[i - 1] for i in self.cfg.taps]) as taps:
            velocity = self.velocity(clip, levels, context)
        features = [tap.flatten(1, -2) for tap in taps]
        return velocity[:, m:], torch.stack(features, 1)

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The network's, in order."""

    @abstractmethod
    def velocity(self, clip: Tensor, levels: Tensor, context: Past) -> Tensor:
        """Of a whole clip (B, n, C, h, w), by the library's class; levels: sigma (B, n)."""

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


def _transformer(cfg: DiffusersWorldConfig) -> tuple[nn.Module, bytes]:
    """Fresh, or from its folder; and the digest of what adapters leave as it is.

    ValueError of one sentence where the folder's is of other sizes, or adapters have none.
    """
    import diffusers

    sizes = cfg.sizes()
    meta = torch.get_default_device().type == "meta"
    digest = b""
    if meta or not (cfg.pretrained or cfg.lora.rank):
        network = getattr(diffusers, cfg.network)(**sizes)
        cfg.fresh(network)
    else:
        option = "model.world.pretrained"
        folder, config = pretrained_folder(cfg.pretrained, "transformer", option, (cfg.network,))
        found = cfg.said(config)
        _require_sizes(found, sizes, folder)
        network = load_pretrained(folder, cfg.network, **_changed(config, found))
        digest = folder_digest(folder, config) if cfg.lora.rank else b""
    if cfg.lora.rank:
        add_adapters(network, cfg.lora)
    return network, digest


def _changed(config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What `DiffusersWorldConfig.said` says otherwise than the folder."""
    return {name: value for name, value in found.items() if config.get(name) != value}


def _require_sizes(config: dict[str, Any], sizes: dict[str, Any], folder: Path) -> None:
    for name, value in sizes.items():
        found = config.get(name)
        found = tuple(found) if isinstance(found, list) else found
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
