"""Pictures: one way to change their size,
so that an environment and its recordings agree to the last bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_COLOURS = (1, 3, 4)  # grey, RGB, RGBA


def rgb(picture: object, what: str) -> np.ndarray:
    """uint8 (H, W, 3) of whatever a picture came as: grey, RGB or opaque RGBA, channels first or
    last, whole numbers 0..255 or floats 0..1, of numpy, torch or Pillow.

    `what`: how the ValueError calls it, one sentence, where more than one reading is possible.

    Example: `rgb(np.zeros((3, 64, 64), np.float32), "pixels/top")`
    """
    array = np.asarray(picture)
    if array.dtype == object or array.dtype.kind not in "uif":
        found = type(picture).__name__ if array.dtype == object else str(array.dtype)
        raise ValueError(f"{what} is {found}, not a picture: give uint8 (H, W, 3)")
    return _bytes(_channels_last(array, what), what)


def _channels_last(array: np.ndarray, what: str) -> np.ndarray:
    """(H, W, 3) of the same numbers."""
    found = f"{what} is {array.dtype} {array.shape}"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise ValueError(
            f"{found}, not one picture: give (H, W, 3), of a stack the last one (the model keeps "
            "its own history)"
        )
    first = array.shape[0] in _COLOURS
    last = array.shape[2] in _COLOURS
    if first == last:
        why = "channels may be first or last" if first else "no axis holds 1, 3 or 4 channels"
        raise ValueError(f"{found}, not a picture that can be read ({why}): give uint8 (H, W, 3)")
    if first:
        array = array.transpose(1, 2, 0)
    if array.shape[2] == 4:
        alpha = array[..., 3]
        if not (alpha == (255 if array.dtype.kind in "ui" else 1)).all():
            raise ValueError(f"{found} and partly transparent: blend it with its background first")
        return array[..., :3]
    return array.repeat(3, axis=2) if array.shape[2] == 1 else array


def _bytes(array: np.ndarray, what: str) -> np.ndarray:
    """The same picture as contiguous uint8."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    most = 1 if array.dtype.kind == "f" else 255
    low = array.min(initial=0)
    high = array.max(initial=0)
    if not 0 <= low <= high <= most:  # NaN neither
        raise ValueError(
            f"{what} is {array.dtype} from {low:.4g} to {high:.4g}, expected 0 to {most}: give "
            "uint8 0..255, or floats 0..1"
        )
    scaled = np.rint(array * 255.0) if most == 1 else array
    return np.ascontiguousarray(scaled.astype(np.uint8))


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
