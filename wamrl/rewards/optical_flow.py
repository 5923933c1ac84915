"""Optical-flow MSE: did things move as imagined? One of the paper's four similarities.

distance = mean over views and pixels of |flow(last -> a_f) - flow(last -> b_f)|^2, flow in units of
the image's width, so that it does not depend on the resolution. Both flows start from the same real
frame `last`, so they live on one grid. The paper names neither the estimator nor the pair of
frames. Two estimators:

- `dis` (default): OpenCV's Dense Inverse Search (Kroeger et al. 2016, arXiv 1603.03590), 8-bit
  grey, on the CPU. Right to 0.2 px for shifts up to the diameter of the moving disc of the point
  environment, blind to longer ones, at any working size (`python benchmarks/similarities.py`).
  About 2.5 ms per pair.
- `raft`: torchvision's RAFT (Teed and Deng 2020, arXiv 2003.12039),
  in colour, on the device of the frames.

Flow sees motion only: a lamp that turns on, or a colour that changes in place, hardly counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from wamrl.rewards.base import Similarity, SimilarityConfig, resized
from wamrl.runtime.ranges import Size, check_ranges

MIN_SIZE = 128  # px; RAFT's minimum, and where DIS at last sees motions of small frames


@dataclass(frozen=True, kw_only=True)
class OpticalFlowConfig(SimilarityConfig):
    """Flow MSE.

    `dis` needs `pip install -e '.[rewards]'`, `raft` a torchvision that fits your torch.
    """

    backend: Literal["dis", "raft"] = "dis"
    # px: frames are resized so that their shorter side is this; >= 128
    size: Annotated[int, Ge(MIN_SIZE), Le(4096)] = MIN_SIZE
    raft: Literal["small", "large"] = "small"
    # raft only: local .pth or .safetensors file; "": torchvision's own, from its hub
    weights: str = ""
    batch: Size = 32  # raft only: pairs at a time

    @property
    def name(self) -> str:
        """For tables: the estimator is named where it is not the default."""
        return "flow" if self.backend == "dis" else "flow-raft"

    def build(self) -> OpticalFlow:
        """ValueError for sizes that are not possible, and where the estimator is missing."""
        check_ranges(self, "similarity")
        return OpticalFlow(_dis() if self.backend == "dis" else _raft(self), self.size)


# (N, 3, H, W) twice, float32 in [0, 1] -> flow from the first to the second,
# px, float32 (N, 2, H, W), x then y
Estimator = Callable[[Tensor, Tensor], Tensor]


class OpticalFlow(Similarity):
    """Mean squared endpoint difference, in image widths squared."""

    def __init__(self, estimate: Estimator, size: int):
        self.estimate = estimate
        self.size = size

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        """(B, F), over views and pixels, of the flows from `last` to a and to b."""
        n = a.shape[1]
        before = self.prepare(last)[:, None].expand(-1, n, -1, -1, -1, -1).flatten(0, 2)
        flow_a = self.estimate(before, self.prepare(a).flatten(0, 2))
        flow_b = self.estimate(before, self.prepare(b).flatten(0, 2))
        width = before.shape[-1]
        per_image = (flow_a / width - flow_b / width).square().sum(1).mean((1, 2))
        return per_image.unflatten(0, a.shape[:3]).mean(2)

    def prepare(self, frames: Tensor) -> Tensor:
        """(..., H, W, 3) -> (..., 3, h, w): the shorter side is `size`.

        Both sides are multiples of 8, RAFT's stride.
        """
        h, w = frames.shape[-3:-1]
        scale = self.size / min(h, w)
        hw = tuple(max(MIN_SIZE, 8 * round(n * scale / 8)) for n in (h, w))
        return resized(frames.flatten(0, -4), hw).unflatten(0, frames.shape[:-3])


def _dis() -> Estimator:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            "optical flow needs OpenCV: pip install -e '.[rewards]' in the clone of wamrl"
        ) from error
    import numpy as np

    weights = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601 luma, as OpenCV's RGB2GRAY

    def grey(images: Tensor) -> np.ndarray:
        luma = torch.einsum("nchw,c->nhw", images.cpu() * 255, weights)
        return luma.round().clamp(0, 255).byte().numpy()

    def still(x: np.ndarray) -> np.ndarray:
        # what DIS returns too, in no time: copies are scored often
        return np.zeros((*x.shape, 2), np.float32)

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        pairs = zip(grey(first), grey(second), strict=True)
        flows = [still(x) if (x == y).all() else dis.calc(x, y, None) for x, y in pairs]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(first.device)

    return estimate


def _raft(cfg: OpticalFlowConfig) -> Estimator:
    try:
        from torchvision.models import optical_flow as tv
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision built for another torch
        raise ValueError(
            f"backend='raft' needs a torchvision that loads beside torch {torch.__version__}: "
            "install the one for it, or choose backend='dis'"
        ) from error
    builder, hub = {
        "small": (tv.raft_small, tv.Raft_Small_Weights.DEFAULT),
        "large": (tv.raft_large, tv.Raft_Large_Weights.DEFAULT),
    }[cfg.raft]
    if cfg.weights:
        net = _loaded(builder(weights=None), cfg)
    else:
        try:
            net = builder(weights=hub, progress=False)
        except OSError as error:  # URLError is one
            raise ValueError(
                f"RAFT's weights could not be downloaded: get {hub.url} elsewhere "
                "and give the file as weights="
            ) from error
    net = net.eval().requires_grad_(False).float()

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        net.to(first.device)
        firsts = (first * 2 - 1).split(cfg.batch)
        seconds = (second * 2 - 1).split(cfg.batch)
        with torch.autocast(first.device.type, enabled=False):
            # the last of 12 refinements
            flows = [net(x, y)[-1] for x, y in zip(firsts, seconds, strict=True)]
        return torch.cat(flows)

    return estimate


def _loaded(net: nn.Module, cfg: OpticalFlowConfig) -> nn.Module:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(cfg.weights)
    if not path.is_file():
        raise ValueError(
            f"no RAFT weights at {path}: give a .pth or .safetensors file of torchvision's RAFT"
        )
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(weights)
    except (RuntimeError, TypeError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{path} does not hold the weights of torchvision's raft_{cfg.raft}: give its file"
        ) from error
    return net
