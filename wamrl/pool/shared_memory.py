"""The block of memory that a pool shares with its workers.
No torch here: the workers import this file.

The block is a file without a name: nothing can be left behind in /dev/shm, whoever is killed, and
its size is not bound by the 64 MB that containers often give to /dev/shm.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from dataclasses import dataclass

import numpy as np

from wamrl.envs.base import EnvSpec

# What a slot's row of `facts` begins with: executed, stages, success, terminated, truncated.
# One call that packs them costs a fifth of five assignments to elements of arrays.
_FACTS = 8  # a cache line for each slot
PACK_FACTS = struct.Struct("=5q").pack_into
# bytes; one cache line, so that two workers never write to the same one at a field's edge
_ALIGN = 64


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which arrays the block holds. B slots; the letters are those of `wamrl/types.py`."""

    spec: EnvSpec
    n_envs: int
    n_exec: int
    frame_offsets: tuple[int, ...]
    history_offsets: tuple[int, ...]

    def fields(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape). `actions` goes to the workers, the rest comes from them."""
        spec = self.spec
        batch = self.n_envs
        picture = (len(spec.views), *spec.image_hw, 3)
        return {
            "actions": ("float32", (batch, self.n_exec, spec.action_dim)),
            "frames": ("uint8", (batch, len(self.frame_offsets), *picture)),
            "facts": ("int64", (batch, _FACTS)),
            "counters": ("int64", (batch, len(spec.counters))),
            "obs_frames": ("uint8", (batch, len(self.history_offsets), *picture)),
            "obs_proprio": ("float32", (batch, spec.proprio_dim)),
        }

    def local(self, count: int) -> dict[str, np.ndarray]:
        """Arrays of our own for `count` slots, by name."""
        return {
            name: np.zeros((count, *shape[1:]), dtype)
            for name, (dtype, shape) in self.fields().items()
        }

    @property
    def nbytes(self) -> int:
        return sum(_padded(dtype, shape) for dtype, shape in self.fields().values())

    def views(self, block: mmap.mmap) -> dict[str, np.ndarray]:
        """Arrays on the block, by name; zero until somebody writes."""
        arrays = {}
        offset = 0
        for name, (dtype, shape) in self.fields().items():
            arrays[name] = np.ndarray(shape, dtype, buffer=block, offset=offset)
            offset += _padded(dtype, shape)
        return arrays


def _padded(dtype: str, shape: tuple[int, ...]) -> int:
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return -(-nbytes // _ALIGN) * _ALIGN


def nameless_file() -> int:
    """A file descriptor of memory that vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("wamrl-pool")
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


def map_block(fd: int, layout: Layout) -> mmap.mmap:
    """Map the block; whoever comes first gives it its size."""
    os.ftruncate(fd, layout.nbytes)
    return mmap.mmap(fd, layout.nbytes)
