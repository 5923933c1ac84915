"""Pictures as latents and back: through a frozen VAE of diffusers, or as differences of pixels.

A VAE that compresses time makes one latent of the first frame and one of every `group` frames after
it. A frame count of another form is refused, because the library drops the rest without a word. Its
latents mean nothing without those before them, so past and future are encoded and decoded as one
clip. Several camera views are one wide picture, side by side.

Nothing here is trained: copies of a model share it, and neither checkpoints nor optimisers see it.
Of a VAE the checkpoint holds `digest` only, so that another one is noticed.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from wamrl.runtime.files import sha256
from wamrl.runtime.ranges import Positive, Size, check_ranges

# Found by the name that the folder's config.json gives; no other class is ever made.
VAES = ("AutoencoderKLWan", "AutoencoderKLLTXVideo")
WITHOUT_VAE = bytes(32)  # the digest where there is none


class LatentConfig(ABC):
    """What pictures become; a frozen dataclass that also says the latents' shape."""

    channels: int
    group: int  # frames per latent, after the first frame, which has one of its own
    cell: int  # pixels per latent, along each side

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""

    @abstractmethod
    def build(self) -> Latents:
        """The way there and back. ValueError where its files are missing or do not fit."""


@dataclass(frozen=True, kw_only=True)
class PixelsConfig(LatentConfig):
    """No VAE, for small pictures x in [-1, 1]: the first frame is (x - mean) / std.

    Each later one is how it differs from the one before, over `change`. So a latent means nothing
    without those before it, as with a causal VAE, and a future of zeros is a copy.
    """

    mean: Annotated[float, Ge(-1), Le(1)] = 0.0
    std: Positive = 1.0
    change: Positive = 1.0  # standard deviation of the differences

    channels = 3
    group = 1
    cell = 1

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world.latent")

    def build(self) -> Latents:
        """See `LatentConfig`."""
        return Pixels(self)


@dataclass(frozen=True, kw_only=True)
class VAEConfig(LatentConfig):
    """A VAE of diffusers, AutoencoderKLWan or AutoencoderKLLTXVideo; by default Wan 2.1's shape."""

    folder: str = ""  # a local one: config.json and *.safetensors, as `save_pretrained` writes them
    channels: Size = 16
    group: Size = 4
    cell: Size = 8

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world.latent")

    def build(self) -> Latents:
        """See `LatentConfig`; on the meta device shapes only, which needs no folder."""
        if torch.get_default_device().type == "meta" and not self.folder:
            return UnknownVAE(self)
        return FrozenVAE(self)


class Latents:
    """The shape of latents z (B, n, C, h, w); a subclass has the way there and back."""

    digest = WITHOUT_VAE  # 32 bytes that tell what makes them

    def __init__(self, cfg: LatentConfig):
        self.cfg = cfg

    def __deepcopy__(self, memo: dict) -> Latents:
        return self

    def shape(self, frames: int, views: int, image_hw: tuple[int, int]) -> tuple[int, ...]:
        """(n, C, h, w) of a clip of `frames`; ValueError where pictures do not fit."""
        h, w = image_hw
        cell = self.cfg.cell
        if h % cell or w % cell:
            raise ValueError(
                f"pictures of {h} x {w} pixels are no whole number of the VAE's {cell} x {cell} "
                "cells: change the environment's image size"
            )
        return (self.count(frames), self.cfg.channels, h // cell, views * w // cell)

    def count(self, frames: int) -> int:
        """Latents of a clip of `frames`; ValueError where some frames would be dropped."""
        group = self.cfg.group
        if (frames - 1) % group:
            raise ValueError(
                f"a clip of {frames} frames has no latents: this VAE needs {group} n + 1 of them "
                "(history and imagined frames); change history_offsets or frame_offsets"
            )
        return 1 + (frames - 1) // group

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, V, H, W, 3), T = group n + 1, to float32 z (B, n + 1, C, h, w)."""
        self.count(frames.shape[1])
        x = frames.float() / 127.5 - 1
        x = x.permute(0, 5, 1, 3, 2, 4).flatten(4)  # (B, 3, T, H, V W)
        with torch.autocast(x.device.type, enabled=False):
            z = self._encode(x)
        return z.movedim(2, 1)

    @torch.no_grad()
    def decode(self, z: Tensor, views: int) -> Tensor:
        """The inverse for a whole clip: float32 in [0, 1], (B, T, V, H, W, 3)."""
        with torch.autocast(z.device.type, enabled=False):
            x = self._decode(z.float().movedim(1, 2))
        x = ((x + 1) / 2).clamp(0, 1).unflatten(4, (views, -1))
        return x.permute(0, 2, 4, 3, 5, 1)

    def _encode(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [-1, 1] to (B, C, n, h, w)."""
        raise NotImplementedError

    def _decode(self, z: Tensor) -> Tensor:
        raise NotImplementedError


class Pixels(Latents):
    def _encode(self, x: Tensor) -> Tensor:
        first = (x[:, :, :1] - self.cfg.mean) / self.cfg.std
        return torch.cat([first, x.diff(dim=2) / self.cfg.change], 2)

    def _decode(self, z: Tensor) -> Tensor:
        first = z[:, :, :1] * self.cfg.std + self.cfg.mean
        return torch.cat([first, z[:, :, 1:] * self.cfg.change], 2).cumsum(2)


class UnknownVAE(Latents):
    """One of which only the shape is known: what `wamrl plan` takes where no folder is given."""

    def _encode(self, x: Tensor) -> Tensor:
        b, _, t, h, w = x.shape
        cell = self.cfg.cell
        return x.new_zeros(b, self.cfg.channels, self.count(t), h // cell, w // cell)

    def _decode(self, z: Tensor) -> Tensor:
        b, _, n, h, w = z.shape
        cell = self.cfg.cell
        return z.new_zeros(b, 3, 1 + (n - 1) * self.cfg.group, h * cell, w * cell)


class FrozenVAE(Latents):
    def __init__(self, cfg: VAEConfig):
        """ValueError of one sentence where the folder holds no VAE of this shape. On the meta
        device its weights are not read.
        """
        super().__init__(cfg)
        folder, config = pretrained_folder(cfg.folder, "VAE", "model.world.latent.folder", VAES)
        _require_shape(cfg, config)
        if torch.get_default_device().type == "meta":
            vae = _without_weights(config)
        else:
            self.digest = folder_digest(folder, config)
            vae = load_pretrained(folder, config["_class_name"])
        self.vae = vae.requires_grad_(False).eval()
        self.mean, self.std = _moments(vae)

    def _encode(self, x: Tensor) -> Tensor:
        vae = self._on(x.device)
        rows = [vae.encode(row).latent_dist.mode() for row in x.split(1)]  # a row's memory at once
        return (torch.cat(rows) - self.mean) / self.std

    def _decode(self, z: Tensor) -> Tensor:
        vae = self._on(z.device)
        z = z * self.std + self.mean
        clean = {}
        if getattr(vae.config, "timestep_conditioning", False):
            clean = {"temb": z.new_zeros(1)}  # latents without noise, as the library's pipeline
        return torch.cat([vae.decode(row, **clean).sample for row in z.split(1)])

    def _on(self, device: torch.device) -> nn.Module:
        """It is no part of the model, so `model.to` does not reach it."""
        if self.mean.device != device:
            self.vae.to(device)
            self.mean = self.mean.to(device)
            self.std = self.std.to(device)
        return self.vae


def pretrained_folder(
    path: str, what: str, option: str, classes: tuple[str, ...]
) -> tuple[Path, dict[str, Any]]:
    """A local folder of diffusers and its config.json.

    ValueError of one sentence where it holds none of these classes or no safetensors.
    """
    advice = f"give the folder of a {what} ({' or '.join(classes)}), --{option}"
    if not path:
        raise ValueError(f"the {what} does not learn and comes from a local folder: {advice}")
    folder = Path(path)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable config.json ({error}): {advice}") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found not in classes:
        raise ValueError(f"{folder} holds a {found}: {advice}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} holds no *.safetensors, and nothing else is read: {advice}")
    return folder, config


def load_pretrained(folder: Path, name: str, **config: Any) -> nn.Module:
    """The class `name` of diffusers from a local folder: safetensors only, float32, no download.

    config: what is to be otherwise than in its config.json.
    ValueError of one sentence where a weight is missing, unexpected or of another shape.
    """
    import diffusers

    try:
        model, report = getattr(diffusers, name).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **config,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{folder} cannot be read as a {name}: {str(error).strip().splitlines()[0]}"
        ) from error
    odd = [f"{kind.split('_')[0]} {key}" for kind, keys in sorted(report.items()) for key in keys]
    if odd:
        raise ValueError(f"{folder} is no whole {name} ({len(odd)} keys differ: {odd[0]}, ...)")
    return model.float()


def _without_weights(config: dict[str, Any]) -> nn.Module:
    """The class of diffusers that a config.json names, as it is made on the present device."""
    import diffusers

    return getattr(diffusers, config["_class_name"]).from_config(config)


def frozen_vae(world: nn.Module) -> nn.Module | None:
    """The VAE beside a world model, which is no part of it, if it has one."""
    return getattr(getattr(world, "latents", None), "vae", None)


def folder_digest(folder: Path, config: dict[str, Any]) -> bytes:
    """sha256 of a folder's weights and of what its configuration says, but for versions."""
    digest = hashlib.sha256()
    said = {key: value for key, value in config.items() if not key.startswith("_")}
    digest.update(json.dumps(said, sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(sha256(file).encode())
    return digest.digest()


def _require_shape(cfg: VAEConfig, config: dict[str, Any]) -> None:
    """ValueError unless the VAE of this configuration has the latents that `cfg` promises."""
    wan = config["_class_name"] == "AutoencoderKLWan"
    try:
        found = _wan_shape(config) if wan else _ltx_shape(config)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{cfg.folder} does not say its shape ({error}): is it whole?") from error
    fault = _fault(config)
    if fault is not None:
        raise ValueError(f"{cfg.folder} {fault}, which is not supported: choose another VAE")
    for name, value in found.items():
        if getattr(cfg, name) != value:
            raise ValueError(
                f"the VAE in {cfg.folder} has {name}={value}, not {getattr(cfg, name)}: "
                f"set --model.world.latent.{name} {value}"
            )


def _wan_shape(config: dict[str, Any]) -> dict[str, int]:
    cell = 2 ** (len(config["dim_mult"]) - 1) * (config.get("patch_size") or 1)
    group = 2 ** sum(config["temperal_downsample"])
    return {"channels": config["z_dim"], "group": group, "cell": cell}


def _ltx_shape(config: dict[str, Any]) -> dict[str, int]:
    halved = 2 ** sum(config["spatio_temporal_scaling"])
    group = config["patch_size_t"] * halved
    return {
        "channels": config["latent_channels"],
        "group": group,
        "cell": config["patch_size"] * halved,
    }


def _fault(config: dict[str, Any]) -> str | None:
    """What of a VAE we cannot use, or None."""
    if sum(config.get("temperal_downsample", (1, 1))) != 2:
        return "does not make one latent of 4 frames, which is how diffusers hands them to it"
    if not config.get("encoder_causal", True):
        return "lets the future into the latents of the past"
    if any(config.get("decoder_inject_noise", ())):
        return "decodes with noise of its own"
    return None


def _moments(vae: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a VAE's raw latents, (1, C, 1, 1, 1) each."""
    if "latents_mean" in vae.config:
        mean = torch.tensor(vae.config.latents_mean)
        std = torch.tensor(vae.config.latents_std)
    else:  # LTX keeps them among its weights
        mean = vae.latents_mean
        std = vae.latents_std / vae.config.scaling_factor
    return mean.float().view(1, -1, 1, 1, 1), std.float().view(1, -1, 1, 1, 1)
