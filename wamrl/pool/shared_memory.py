"""The block of memory that a pool shares with its workers.
No torch here: the workers import this file.

The block is a file without a name: nothing can be left behind in /dev/shm, whoever is killed, and
its size is not bound by the 64 MB that containers often give to /dev/shm.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np

from wamrl.envs.base import EnvSpec

NO_FILE = -1  # for `map_block`: memory that nobody shares


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the block holds: one record for each slot; the letters are those of `wamrl/types.py`."""

    spec: EnvSpec
    n_envs: int
    n_exec: int
    frame_offsets: tuple[int, ...]
    history_offsets: tuple[int, ...]

    @property
    def record(self) -> np.dtype:
        """Of a slot. `actions` goes to its worker, the rest comes from there: the fields of an
        `Outcome` by their names, those of its `obs` with the prefix; and `steps`, control steps and
        resets so far, by which a slow worker is told from one that hangs.
        """
        spec = self.spec
        picture = (len(spec.views), *spec.image_hw, 3)
        fields = [
            ("actions", "float32", (self.n_exec, spec.action_dim)),
            ("frames", "uint8", (len(self.frame_offsets), *picture)),
            ("obs_frames", "uint8", (len(self.history_offsets), *picture)),
            ("obs_proprio", "float32", (spec.proprio_dim,)),
            ("counters", "int64", (len(spec.counters),)),
            ("steps", "int64"),
            ("executed", "int64"),
            ("stages", "int64"),
            ("success", "bool"),
            ("terminated", "bool"),
            ("truncated", "bool"),
        ]
        return np.dtype(fields, align=True)

    def map_block(self, fd: int) -> np.ndarray:
        """The records of all slots, `record` (B,), in the memory of the file (or of `NO_FILE`);
        zero until somebody writes. Whoever comes first gives the file its size.
        """
        size = self.n_envs * self.record.itemsize
        if fd != NO_FILE:
            os.ftruncate(fd, size)
        return np.ndarray(self.n_envs, self.record, buffer=mmap.mmap(fd, size))


def nameless_file() -> int:
    """A file descriptor of memory that vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("wamrl-pool")
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())
