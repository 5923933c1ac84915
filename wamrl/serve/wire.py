"""msgpack with NumPy arrays, as openpi writes it; and nothing else, since it comes from outside.

An array is {b"__ndarray__": true, b"data": bytes, b"dtype": "<f4", b"shape": [..]}, a NumPy number
{b"__npgeneric__": true, b"data": number, b"dtype": ..}. Only booleans, integers and floats are
arrays here: no objects, no records, no extension types, no pickle.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

_KINDS = "biuf"
_MAX_DIMS = 8
_MAX_ITEMS = 1024  # of a dict or a list
_MAX_TEXT = 1 << 16  # bytes of a text


def pack(value: Any) -> bytes:
    """Dicts, lists, texts, numbers and arrays as bytes."""
    return msgpack.packb(value, default=_packed)


def unpack(data: bytes) -> Any:
    """What `pack` was given; arrays share memory with `data`, and cannot be written.

    ValueError of one sentence where it is anything else.
    """
    try:
        return msgpack.unpackb(
            data,
            object_hook=_unpacked,
            ext_hook=_no_extension,
            max_str_len=_MAX_TEXT,
            max_bin_len=len(data),
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"the message is not msgpack of numbers, texts and arrays: {reason}"
        ) from None


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _KINDS:
        raise ValueError(f"cannot send an array of {value.dtype}")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise ValueError(f"cannot send a {type(value).__name__}")


def _unpacked(value: dict) -> Any:
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        number = value.get(b"data")
        if not isinstance(number, bool | int | float):
            raise ValueError("a NumPy number must be a number")
        dtype = _dtype(value)
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
            raise ValueError(f"{number} is no {dtype}")
        return dtype.type(number)
    return value


def _array(value: dict) -> np.ndarray:
    dtype = _dtype(value)
    data = value.get(b"data")
    shape = value.get(b"shape")
    counts = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not counts or len(shape) > _MAX_DIMS or not isinstance(data, bytes):
        raise ValueError(f"an array needs bytes and a shape of at most {_MAX_DIMS} dimensions")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes are no array of shape {shape} and {dtype}")
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(value: dict) -> np.dtype:
    name = value.get(b"dtype")
    if not isinstance(name, str) or len(name) > 8:
        raise ValueError("an array needs a dtype such as '<f4'")
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise ValueError(f"arrays of {dtype} are not read: send numbers")
    return dtype


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not read")
