"""PNG bytes in parquet cells, read by row group."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import numpy as np

from wamrl.data.lerobot.schema import BROKEN, WRONG
from wamrl.data.lerobot.tables import open_parquet, read_batches

_CACHE_BYTES = 1 << 28


def encode(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=6)
    return out.getvalue()


def decode(data: object, hw: tuple[int, int], where: str) -> np.ndarray:
    """uint8 (H, W, 3); the size is compared before any pixel is unpacked."""
    from PIL import Image

    try:
        if not isinstance(data, bytes):
            raise ValueError("the cell holds no bytes")
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.size != (hw[1], hw[0]):
                raise ValueError(
                    f"it is {image.size[1]} x {image.size[0]}, info.json says {hw[0]} x {hw[1]}"
                )
            return np.array(image.convert("RGB"))
    except Exception as error:  # whatever Pillow makes of broken bytes
        raise ValueError(f"{where}: an image is not readable ({error}): {BROKEN}") from None


class Cells:
    """Cells of image columns. The row groups that were used last stay in memory, up to 256 MB."""

    def __init__(self) -> None:
        # path -> file, first row of each group
        self._files: OrderedDict[Path, tuple] = OrderedDict()
        self._groups: OrderedDict[tuple, object] = OrderedDict()

    def cell(self, path: Path, column: str, row: int) -> object:
        """The bytes in row `row` of the file."""
        file, starts = self._file(path)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        if row >= starts[-1]:
            raise ValueError(f"{path} has only {starts[-1]} rows: {WRONG}")
        return self._group(file, path, column, group)[row - int(starts[group])]

    def in_group(self, path: Path, column: str, group: int, row: int) -> object:
        """The bytes in row `row` of one row group."""
        _, starts = self._file(path)
        return self.cell(path, column, int(starts[group]) + row)

    def _file(self, path: Path) -> tuple:
        if path not in self._files:
            file = open_parquet(path)
            rows = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            self._files[path] = file, np.cumsum([0, *rows])
            if len(self._files) > 16:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path]

    def _group(self, file, path: Path, column: str, group: int) -> list:
        key = (path, column, group)
        if key not in self._groups:
            if column not in file.schema_arrow.names:
                raise ValueError(f"{path} has no column {column!r}: {WRONG}")
            cells: list = []
            for batch in read_batches(file, path, group, [column]):
                values = batch.column(0)
                names = (
                    [field.name for field in values.type]
                    if str(values.type).startswith("struct")
                    else []
                )
                cells += (values.field("bytes") if "bytes" in names else values).to_pylist()
            self._groups[key] = cells, sum(len(cell) for cell in cells if isinstance(cell, bytes))
            while (
                len(self._groups) > 1
                and sum(size for _, size in self._groups.values()) > _CACHE_BYTES
            ):
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key][0]
