"""Pictures: one way to change their size,
so that an environment and its recordings agree to the last bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np


def resize(frames: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """uint8 (..., H, W, 3) -> uint8 (..., h, w, 3); a new pixel is the mean of the area under it,
    parts counting as parts. The sides are squeezed independently of each other. The same array
    comes back if the size is right already.

    Example: `resize(frame, (64, 64))`
    """
    assert frames.dtype == np.uint8 and frames.ndim >= 3, (
        f"pictures must be uint8 (..., H, W, 3), not {frames.shape}"
    )
    high, wide, colours = frames.shape[-3:]
    if (high, wide) == tuple(hw):
        return frames
    rows = _shares(high, hw[0]) @ frames.reshape(*frames.shape[:-2], wide * colours).astype(
        np.float32
    )
    small = _shares(wide, hw[1]) @ rows.reshape(*frames.shape[:-3], hw[0], wide, colours)
    return np.rint(small).astype(np.uint8)


@cache
def _shares(old: int, new: int) -> np.ndarray:
    """How much of each old pixel lies in each new one, float32 (new, old); rows sum to 1."""
    edges = np.arange(new + 1) * old / new
    left = np.maximum.outer(edges[:-1], np.arange(old))
    right = np.minimum.outer(edges[1:], np.arange(1, old + 1))
    shares = np.clip(right - left, 0.0, None)
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)
