"""Tables of rows in one safetensors file, larger than memory if need be:
written part by part, read row by row.

Reading goes by `os.pread`, not by a memory map: what is read is all the memory that is used, and a
file that somebody shortens gives an error and not a crash.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open

_NAMES = {np.dtype(np.uint8): "U8", np.dtype(np.float32): "F32"}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
_NEAR = 1 << 16  # bytes; rows that lie closer together are read at once


class RowsWriter:
    """Tables of known length, filled from their beginnings; `close` says whether they are full.

    Example:
        with RowsWriter(path, {"x": (np.float32, (10, 3))}) as file:
            file.append("x", np.zeros((10, 3), np.float32))
    """

    def __init__(self, path: Path, tables: dict[str, tuple[type, tuple[int, ...]]]) -> None:
        header = {}
        end = 0
        for name, (dtype, shape) in tables.items():
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            header[name] = {
                "dtype": _NAMES[np.dtype(dtype)],
                "shape": shape,
                "data_offsets": (end, end + size),
            }
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8, as safetensors does it
        self._tables = tables
        self._begin = {name: 8 + len(text) + row["data_offsets"][0] for name, row in header.items()}
        self._written = dict.fromkeys(tables, 0)  # rows
        self._file = open(path, "wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def append(self, name: str, rows: np.ndarray) -> None:
        """Write (n, ...) behind the rows of table `name`, of the announced dtype and shape."""
        dtype, shape = self._tables[name]
        assert rows.dtype == dtype and rows.shape[1:] == shape[1:], (
            name,
            rows.dtype,
            rows.shape,
            shape,
        )
        assert self._written[name] + len(rows) <= shape[0], f"{name} is full"
        self._file.seek(
            self._begin[name] + self._written[name] * (rows[0].nbytes if len(rows) else 0)
        )
        self._file.write(np.ascontiguousarray(rows).data)
        self._written[name] += len(rows)

    def close(self) -> None:
        """Close the file when it is safely on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        self.close()
        assert kind or all(
            self._written[name] == shape[0] for name, (_, shape) in self._tables.items()
        ), self._written


class RowsFile:
    """The tables of a safetensors file; its header is read and checked by safetensors itself."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="numpy") as checked:
            self.shapes = {
                name: tuple(checked.get_slice(name).get_shape()) for name in checked.keys()
            }
        self._file = open(path, "rb", buffering=0)
        (length,) = struct.unpack("<Q", self._file.read(8))
        header = json.loads(self._file.read(length))
        self.dtypes = {name: _TYPES.get(header[name]["dtype"]) for name in self.shapes}
        self._begin = {name: 8 + length + header[name]["data_offsets"][0] for name in self.shapes}

    def all(self, name: str) -> np.ndarray:
        """A whole table, in memory."""
        return self.read(name, 0, self.shapes[name][0])

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of a table."""
        out = np.empty((stop - start, *self.shapes[name][1:]), self.dtypes[name])
        view = memoryview(out).cast("B") if out.size else memoryview(b"")
        row = self._row_bytes(name)
        done = 0
        while done < len(view):
            got = os.preadv(
                self._file.fileno(), [view[done:]], self._begin[name] + start * row + done
            )
            if got == 0:
                raise ValueError(
                    f"{self._file.name} has become shorter while it was read: put it back and "
                    "start again"
                )
            done += got
        return out

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The given rows of a table, int64 (n,), in any order, repeats allowed."""
        unique, back = np.unique(rows, return_inverse=True)
        parts = [
            self.read(name, int(run[0]), int(run[-1]) + 1)[run - run[0]]
            for run in self._runs(name, unique)
        ]
        return np.concatenate(parts)[back]

    def _runs(self, name: str, unique: np.ndarray) -> Iterator[np.ndarray]:
        """Ascending rows in pieces that lie close together."""
        gap = max(1, _NEAR // max(1, self._row_bytes(name)))
        return iter(np.split(unique, np.flatnonzero(np.diff(unique) > gap) + 1))

    def _row_bytes(self, name: str) -> int:
        return int(np.prod(self.shapes[name][1:], dtype=np.int64)) * self.dtypes[name].itemsize
