"""Distances in the features of pretrained vision models: DINOv2 (images), V-JEPA2 (video).

distance = mean over views and patches of 1 - cos(p, q), in [0, 2]; p, q the patch tokens of the
last layer, after its layer norm, at the same place. 1 - cos is computed as |p/|p| - q/|q||^2 / 2,
which is exactly 0 for equal tokens and never negative. Patches rather than the class token, because
a robot's task is decided by where things are. (The paper names neither the tokens nor the
distance.) The models come through `transformers`.

Per frame: DINOv2 sees each frame alone. V-JEPA2 sees a clip of one tubelet (2 frames) per frame f,
(last, frame_f), so its tokens hold the motion from the real present to that frame, and frame f is
never judged by later ones, which may not be verifiable.

Frames are resized to a square (bicubic, antialiased) and normalised with ImageNet's mean and
deviation here: the image processors of transformers need torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.rewards.base import Similarity, SimilarityConfig, resized
from wamrl.runtime.ranges import Pixels, Seed, Size

# ImageNet's, of RGB in [0, 1]
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# the network of weights=None
RANDOM = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64}


@dataclass(frozen=True, kw_only=True)
class DINOv2Config(SimilarityConfig):
    """DINOv2 (arXiv 2304.07193). Needs `pip install -e '.[rewards]'`."""

    # local folder or hub name; None: RANDOM, for tests and ablations
    weights: str | None = "facebook/dinov2-small"
    size: Pixels = 224  # px, a multiple of the patch (14)
    batch: Size = 64  # images at a time
    seed: Seed = 0  # of the random network

    @property
    def name(self) -> str:
        """For tables."""
        return "dinov2-random" if self.weights is None else "dinov2"

    def build(self) -> FeatureDistance:
        """ValueError where transformers or the weights are missing."""
        transformers = _transformers()
        cls = transformers.Dinov2Model
        if self.weights is None:
            config = transformers.Dinov2Config(image_size=self.size, **RANDOM)
            net = _random(cls, config, self.seed)
        else:
            net = _pretrained(cls, self.weights, required="")
        return FeatureDistance(net, _dinov2_tokens, self.size, self.batch)


@dataclass(frozen=True, kw_only=True)
class VJEPA2Config(SimilarityConfig):
    """V-JEPA2's encoder (arXiv 2506.09985). Needs `pip install -e '.[rewards]'`."""

    weights: str | None = "facebook/vjepa2-vitl-fpc64-256"  # local folder or hub name; None: RANDOM
    # px, a multiple of the patch (16); positions are relative, so others than 256 work
    size: Pixels = 256
    batch: Size = 16  # clips at a time
    seed: Seed = 0  # of the random network

    @property
    def name(self) -> str:
        """For tables."""
        return "vjepa2-random" if self.weights is None else "vjepa2"

    def build(self) -> FeatureDistance:
        """ValueError where transformers or the weights are missing."""
        transformers = _transformers()
        cls = transformers.VJEPA2Model
        if self.weights is None:
            # The predictor is never run.
            predictor = {
                "pred_hidden_size": 64,
                "pred_num_attention_heads": 2,
                "pred_num_hidden_layers": 1,
            }
            config = transformers.VJEPA2Config(crop_size=self.size, **RANDOM, **predictor)
            net = _random(cls, config, self.seed)
        else:
            # The rotary positions are counted on the grid of `crop_size`; they are not weights.
            net = _pretrained(cls, self.weights, required="encoder.", crop_size=self.size)
        return FeatureDistance(net, _vjepa2_tokens, self.size, self.batch)


class FeatureDistance(Similarity):
    """Mean cosine distance of patch tokens.

    The network is frozen, in eval mode and float32, on the device of the frames.
    """

    def __init__(
        self,
        net: nn.Module,
        tokens: Callable[[nn.Module, Tensor, Tensor], Tensor],
        size: int,
        batch: int,
    ):
        """tokens(net, images, lasts): two (N, 3, S, S), normalised -> (N, L, D)."""
        patch = net.config.patch_size
        if size < patch or size % patch:
            raise ValueError(
                f"size={size} px does not divide into patches of {patch}: "
                f"choose a multiple of {patch}"
            )
        if batch < 1:
            raise ValueError(f"batch={batch} is not possible: choose at least 1")
        self.net = net
        self.tokens = tokens
        self.size = size
        self.batch = batch

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        """(B, F), over views and patches; `batch` images at a time."""
        self.net.to(a.device)
        before = last[:, None].expand_as(a)
        batches = [x.flatten(0, 2).split(self.batch) for x in (a, b, before)]
        found = []
        with torch.autocast(a.device.type, enabled=False):
            for parts in zip(*batches, strict=True):
                found.append(self._compare(*parts))
        per_image = torch.cat(found)
        return per_image.unflatten(0, a.shape[:3]).mean(2)

    def _compare(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        """(N, H, W, 3) thrice -> (N,)."""
        last = self._prepare(last)
        p = F.normalize(self.tokens(self.net, self._prepare(a), last), dim=-1)
        q = F.normalize(self.tokens(self.net, self._prepare(b), last), dim=-1)
        return (p - q).square().sum(-1).mean(1) / 2

    def _prepare(self, images: Tensor) -> Tensor:
        mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
        std = torch.tensor(STD, device=images.device).view(3, 1, 1)
        return (resized(images, (self.size, self.size)) - mean) / std


def _dinov2_tokens(net: nn.Module, images: Tensor, lasts: Tensor) -> Tensor:
    return net(pixel_values=images).last_hidden_state[:, 1:]  # without the class token


def _vjepa2_tokens(net: nn.Module, images: Tensor, lasts: Tensor) -> Tensor:
    n = max(net.config.tubelet_size, 2)
    clips = torch.stack([lasts] * (n - n // 2) + [images] * (n // 2), dim=1)  # (N, n, 3, S, S)
    return net.get_vision_features(clips)


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "feature distances need transformers: pip install -e '.[rewards]' in the clone of wamrl"
        ) from error
    return transformers


def _random(cls: type[nn.Module], config, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return cls(config).eval().requires_grad_(False).float()


def _knock() -> None:
    """OSError within seconds if the hub cannot be reached.

    transformers would retry for half a minute, aloud.
    """
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()


def _pretrained(cls: type[nn.Module], weights: str, required: str, **changes) -> nn.Module:
    """Safetensors from a local folder, else the local cache, else the hub.

    required: the prefix of the weights that must be there. changes: to the configuration.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    advice = (
        f"give a local folder with config.json and model.safetensors of a {cls.__name__} "
        "as weights="
    )
    folder = Path(weights).is_dir()
    failure = None
    for local in (True,) if folder else (True, False):
        try:
            if not local:
                _knock()
            net, info = _load(cls, weights, local, changes)
            break
        except (OSError, RuntimeError, ValueError, SafetensorError, StrictDataclassError) as error:
            failure = error
    else:
        where = "is not in the local cache and the hub gives nothing"
        if folder:
            where = "cannot be loaded from that folder"
        reason = str(failure).split("\n")[0].rstrip(". ")
        raise ValueError(f"{weights} {where} ({reason}): {advice}") from failure
    if missing := [key for key in info["missing_keys"] if key.startswith(required)]:
        raise ValueError(f"{weights} lacks {len(missing)} weights such as {min(missing)}: {advice}")
    return net.eval().requires_grad_(False)


def _load(cls: type[nn.Module], weights: str, local: bool, changes: dict) -> tuple[nn.Module, dict]:
    """The network, and what transformers tells about its loading."""
    kind = cls.config_class.model_type
    config, _ = cls.config_class.get_config_dict(weights, local_files_only=local)
    found = config.get("model_type")
    if not found:
        raise ValueError("no config.json")
    if found != kind:
        raise ValueError(f"model_type in config.json: {found!r}, not {kind!r}")
    return cls.from_pretrained(
        weights,
        local_files_only=local,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        **changes,
    )
