"""What a similarity is, and how distances between imagined and executed frames become rewards.

reward = -distance, mean over the verifiable frames of the chunk, [0, 1] pixels, float32 (method.md section 4; the paper
leaves sign, scale and pooling open). Standing still is the known hack, so the composite subtracts the copy baseline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Similarity(ABC):
    """A distance between frames. Stateless, deterministic, batched, on the device of the frames."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """float32 [0, 1] frames (B, F, V, H, W, 3), twice -> distance >= 0 per frame (B, F); 0 for equal frames."""


class SimilarityConfig(ABC):
    """Subclass per similarity, frozen."""

    @property
    def name(self) -> str:
        """Short, for tables."""
        return type(self).__name__.removesuffix("Config").lower()

    @abstractmethod
    def build(self) -> Similarity: ...


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The frames of M chunks that a reward looks at, and how each chunk ended."""

    imagined: Tensor  # float32 [0, 1] (M, F, V, H, W, 3)
    executed: Tensor  # float32 [0, 1] (M, F, V, H, W, 3)
    last: Tensor  # float32 [0, 1] (M, V, H, W, 3) the frame before the chunk
    verifiable: Tensor  # bool (M, F)
    success: Tensor  # bool (M,) solved in this chunk


def reconstruction(similarity: Similarity, a: Tensor, b: Tensor, verifiable: Tensor) -> Tensor:
    """-mean distance over verifiable frames, float32 (M,); 0 where none is (such chunks carry no information)."""
    assert a.shape == b.shape and verifiable.shape == a.shape[:2], (a.shape, b.shape, verifiable.shape)
    distance = similarity.distance(a.float(), b.float())
    return -(distance * verifiable).sum(1) / verifiable.sum(1).clamp(min=1)


class RunningNorm(nn.Module):
    """Mean and variance over all values seen so far (Chan's parallel update), saved with the run."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("m2", torch.zeros((), dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        x = x.double().flatten()
        if not len(x):
            return
        total, delta = self.count + len(x), x.mean() - self.mean
        self.m2 += (x - x.mean()).square().sum() + delta**2 * self.count * len(x) / total
        self.mean += delta * len(x) / total
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        std = (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=1e-8)
        return ((x.double() - self.mean) / std).float()
