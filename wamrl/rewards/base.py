"""What a similarity is, and how distances between imagined and executed frames become rewards.

reward = -distance, mean over the verifiable frames of the chunk, [0, 1] pixels, float32.
The paper leaves sign, scale and pooling open (docs/all-of-wamrl.md, section 5).
Standing still is the known hack, so the composite subtracts the copy baseline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.runtime import dist

ROWS = 64  # chunks compared at a time


class Similarity(ABC):
    """A distance between frames. Stateless, deterministic, batched, on the device of the frames."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        """float32 (B, F) >= 0, one distance per frame, 0 for equal frames.

        a, b: float32 [0, 1] (B, F, V, H, W, 3). last: (B, V, H, W, 3), the real frame before both,
        for similarities that look at motion. Frame f is judged by a[:, f], b[:, f] and `last`
        alone: later frames may not be verifiable.
        """


class SimilarityConfig(ABC):
    """Subclass per similarity, frozen."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, for tables and figures."""

    @abstractmethod
    def build(self) -> Similarity:
        """ValueError with one sentence when a package or weights are missing."""


@dataclass(frozen=True, kw_only=True)
class RewardInputs:
    """The frames of M chunks that a reward looks at, and how each chunk ended.

    AssertionError where imagined and executed frames are not of the same control steps.
    """

    # frames float32 in [0, 1] or uint8, which is a quarter of it
    imagined: Tensor  # (M, F, V, H, W, 3)
    executed: Tensor  # (M, F, V, H, W, 3)
    last: Tensor  # (M, V, H, W, 3) the frame before the chunk
    verifiable: Tensor  # bool (M, F)
    success: Tensor  # bool (M,) solved in this chunk
    offsets: tuple[int, ...]  # F control steps after `last` at which the executed frames were taken
    imagined_offsets: tuple[int, ...]  # F control steps that the imagined frames are meant for
    executed_steps: Tensor  # int64 (M,) control steps really executed

    def __post_init__(self) -> None:
        m, f = self.verifiable.shape
        shape = self.executed.shape
        assert self.imagined.shape == shape, (self.imagined.shape, shape)
        assert shape[:2] == (m, f), (shape, self.verifiable.shape)
        assert self.last.shape == (m, *shape[2:]), (self.last.shape, shape)
        assert self.success.shape == self.executed_steps.shape == (m,), (
            "one success and step count per chunk"
        )
        assert len(self.offsets) == f, f"{f} frames at the offsets {self.offsets}"
        assert self.imagined_offsets == self.offsets, (
            f"frames imagined at {self.imagined_offsets} cannot be compared with frames executed "
            f"at {self.offsets}"
        )
        offsets = torch.tensor(self.offsets, device=self.executed_steps.device)
        unreached = self.verifiable & (offsets > self.executed_steps[:, None])
        assert not unreached.any(), (
            "a frame counts as verifiable that lies beyond the executed steps"
        )


def reconstruction(
    similarity: Similarity, a: Tensor, b: Tensor, last: Tensor, verifiable: Tensor
) -> Tensor:
    """-mean distance over verifiable frames, float32 (M,).

    0 where none is: such chunks carry no information.
    a, b: (M, F, V, H, W, 3) in [0, 1]. last: (M, V, H, W, 3). verifiable: bool (M, F).
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    assert verifiable.shape == a.shape[:2], (verifiable.shape, a.shape)
    assert last.shape == (len(a), *a.shape[2:]), (last.shape, a.shape)
    distance = similarity.distance(a.float(), b.float(), last.float())
    return -(distance * verifiable).sum(1) / verifiable.sum(1).clamp(min=1)


def reconstructions(
    similarity: Similarity,
    imagined: Tensor,
    executed: Tensor,
    last: Tensor,
    verifiable: Tensor,
    *,
    device: torch.device | str,
    copy: bool = True,
) -> Tensor:
    """float32 (2, M), on the CPU: of the imagined frames, and of the copied last one.

    Shapes as in `RewardInputs`; ROWS chunks at a time are compared on `device`, as float32.
    copy: False leaves the second row 0; it imagines nothing, so it is what is to be beaten.
    """
    found = []
    for parts in zip(*(x.split(ROWS) for x in (imagined, executed, last, verifiable)), strict=True):
        ours, there, before, real = (part.to(device) for part in parts)
        ours, there, before = (unit_range(frames) for frames in (ours, there, before))
        rewards = [reconstruction(similarity, ours, there, before, real)]
        if copy:
            still = before[:, None].expand_as(there)
            rewards.append(reconstruction(similarity, still, there, before, real))
        else:
            rewards.append(torch.zeros_like(rewards[0]))
        found.append(torch.stack(rewards).cpu())
    return torch.cat(found, 1)


def unit_range(frames: Tensor) -> Tensor:
    """uint8 frames as float32 in [0, 1]; others as they are."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def resized(images: Tensor, hw: tuple[int, int]) -> Tensor:
    """float32 [0, 1] (N, H, W, 3) -> (N, 3, *hw), bicubic and antialiased, back in [0, 1]."""
    x = images.permute(0, 3, 1, 2)
    if x.shape[2:] == hw:
        return x.contiguous()
    return F.interpolate(x, hw, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


class RunningNorm(nn.Module):
    """Mean and variance over all values seen (Chan's parallel update), saved with the run."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("m2", torch.zeros((), dtype=torch.float64))

    def update(self, x: Tensor) -> None:
        """x: the values of this rank; those of all ranks count."""
        x = dist.all_gather(x.double().flatten()).to(self.mean.device)
        if not len(x):
            return
        total = self.count + len(x)
        delta = x.mean() - self.mean
        self.m2 += (x - x.mean()).square().sum() + delta**2 * self.count * len(x) / total
        self.mean += delta * len(x) / total
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) / std, float32, on the device of x."""
        there = x.double().to(self.mean.device)
        return ((there - self.mean) / self.std).float().to(x.device)

    @property
    def std(self) -> Tensor:
        """float64 (), at least 1e-8."""
        return (self.m2 / self.count.clamp(min=1)).sqrt().clamp(min=1e-8)
