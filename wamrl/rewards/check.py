"""Does a similarity keep its contract? Call `check_reward` on your own before training."""

from __future__ import annotations

import torch
from torch import Tensor

from wamrl.rewards.base import SimilarityConfig

CheckShape = tuple[int, int, int, int, int]  # B, F, V, H, W


def check_reward(
    config: SimilarityConfig,
    shape: CheckShape = (3, 2, 2, 32, 32),
    device: torch.device | str = "cpu",
) -> None:
    """Raise ValueError with one sentence naming the fault of a similarity, if it has one.

    shape: of the random frames, B and F at least 2; give your environment's size if your similarity
    depends on it. device: where the frames are.

    Example: `check_reward(MySimilarityConfig(), shape=(4, 2, 1, 64, 64), device="cuda")`
    """
    if min(shape[:2]) < 2:
        raise ValueError(f"check_reward needs at least 2 chunks and 2 frames, not shape={shape}")
    name = type(config).__name__
    if not isinstance(config.name, str) or not config.name:
        raise ValueError(f"{name}: name must be a short text, for tables")
    b, f = shape[:2]
    a, other, last = _frames(shape, device)
    similarity = config.build()
    before = (a.clone(), other.clone(), last.clone())
    distance = similarity.distance(a, other, last)
    if not all(map(torch.equal, (a, other, last), before)):
        raise ValueError(f"{name}: distance changes the frames it is given; work on a copy")
    _check_values(name, distance, similarity.distance(a, a, last), (b, f), a.device)
    for again in (similarity, config.build()):
        if not torch.equal(distance, again.distance(a, other, last)):
            raise ValueError(
                f"{name}: the same frames scored twice differ; "
                "make it deterministic (eval mode, a seed)"
            )
    tolerance = 1e-3 * distance.max()  # kernels may differ with the batch size
    order = torch.arange(b).flip(0)[: b - 1]  # another order, and fewer rows
    found = similarity.distance(a[order], other[order], last[order])
    if (found - distance[order]).abs().max() > tolerance:
        raise ValueError(f"{name}: a row's distance depends on the other rows of the batch")
    for k in range(1, f):
        x = a.clone()
        y = other.clone()
        x[:, k:] = 1 - a[:, k:]
        y[:, k:] = a[:, k:]
        found = similarity.distance(x, y, last)[:, :k]
        if (found - distance[:, :k]).abs().max() > tolerance:
            raise ValueError(
                f"{name}: a frame's distance depends on later frames, which may not be verifiable"
            )


def _frames(shape: CheckShape, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Random frames twice, (B, F, V, H, W, 3), and the last frames before them, (B, V, H, W, 3)."""
    b, f, *views = shape
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2 * f + 1, b, *views, 3, generator=generator).to(device)
    return frames[:f].transpose(0, 1), frames[f:-1].transpose(0, 1), frames[-1]


def _check_values(
    name: str, distance: Tensor, same: Tensor, shape: tuple[int, int], device: torch.device
) -> None:
    if distance.shape != shape:
        raise ValueError(
            f"{name}: distance returns shape {tuple(distance.shape)}; it must be (B, F) = {shape}"
        )
    if distance.device != device:
        raise ValueError(
            f"{name}: frames on {device} give distances on {distance.device}; return them on "
            f"{device}"
        )
    if distance.requires_grad:
        raise ValueError(
            f"{name}: the distance carries a gradient; compute it under torch.no_grad()"
        )
    if distance.dtype != torch.float32 or not distance.isfinite().all() or (distance < 0).any():
        raise ValueError(f"{name}: distances must be finite, non-negative float32")
    if (same > 1e-3 * distance.max()).any() or (distance <= same).any():
        raise ValueError(
            f"{name}: equal frames must have distance 0 and different frames a larger one"
        )
