"""Parquet and JSON lines into numpy columns, every size checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.data.lerobot.schema import BROKEN

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_COLUMN_BYTES = 1 << 33  # one numeric column of a whole dataset in memory
MAX_GROUP_BYTES = 1 << 31  # what one row group may hold of one column
_MAX_JSONL_BYTES = 1 << 30


def arrow() -> tuple:
    """(pyarrow, pyarrow.parquet)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(f"LeRobot datasets need pyarrow ({error}): pip install 'wamrl[data]'") from None
    return pa, pq


def open_parquet(path: Path) -> pq.ParquetFile:
    _, pq = arrow()
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)  # where the writer left some
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {BROKEN}") from None
    except Exception as error:  # whatever pyarrow makes of broken bytes
        raise broken(path, error) from None


def broken(path: Path, error: Exception) -> ValueError:
    what = (str(error) or repr(error)).splitlines()[0]
    return ValueError(f"{path} is corrupt or truncated ({what}): {BROKEN}")


def read_group(file: pq.ParquetFile, path: Path, group: int, columns: Sequence[str]) -> pa.Table:
    """Some columns of one row group."""
    try:
        meta = file.metadata.row_group(group)
        for number in range(meta.num_columns):
            column = meta.column(number)
            if column.path_in_schema.split(".")[0] in columns and column.total_uncompressed_size > MAX_GROUP_BYTES:
                raise ValueError(f"a row group of {column.total_uncompressed_size} bytes: write it in smaller ones")
        return file.read_row_group(group, columns=list(columns))
    except Exception as error:
        raise broken(path, error) from None


def fill_columns(path: Path, into: dict[str, np.ndarray], start: int) -> int:
    """Read the numeric columns of a file into rows `start`... of the arrays (rows, dim); the next start."""
    file = open_parquet(path)
    if missing := [key for key in into if key not in file.schema_arrow.names]:
        raise ValueError(f"{path} has no column {missing[0]!r}, which info.json promises: {BROKEN}")
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if any(start + rows > len(array) for array in into.values()):
            raise ValueError(f"{path} has more rows than info.json says: {BROKEN}")
        table = read_group(file, path, group, list(into))
        for key, array in into.items():
            array[start : start + rows] = numbers(table.column(key), array.shape[1], array.dtype, f"{path}: {key}")
        start += rows
    return start


def numbers(column: pa.ChunkedArray, dim: int, dtype: np.dtype, where: str) -> np.ndarray:
    """A column of numbers, or of lists of `dim` numbers: (rows, dim). Finite, and within the range of `dtype`."""
    pa, _ = arrow()
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    rows = len(array)
    if array.null_count:
        raise ValueError(f"{where} has empty cells: {BROKEN}")
    if pa.types.is_fixed_size_list(array.type) or pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        if not pa.types.is_fixed_size_list(array.type) and (np.diff(array.offsets.to_numpy()) != dim).any():
            raise ValueError(f"{where} has lists of other lengths than {dim}: {BROKEN}")
        array = array.flatten()
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)) or array.null_count:
        raise ValueError(f"{where} is of type {column.type}, expected numbers: {BROKEN}")
    values = array.to_numpy(zero_copy_only=False)
    if len(values) != rows * dim:
        raise ValueError(f"{where} has {len(values)} numbers in {rows} rows, expected {dim} per row: {BROKEN}")
    with np.errstate(over="ignore", invalid="ignore"):
        out = values.astype(dtype).reshape(rows, dim)
    if np.issubdtype(dtype, np.floating) and not np.isfinite(out).all():
        raise ValueError(f"{where} holds NaN or infinity: remove those episodes")
    return out


def read_jsonl(path: Path, most: int) -> list[dict]:
    """At most `most` JSON objects, one per line."""
    rows: list[dict] = []
    try:
        if path.stat().st_size > _MAX_JSONL_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    rows.append(json.loads(line))
                if len(rows) > most or (rows and not isinstance(rows[-1], dict)):
                    raise ValueError(f"more than {most} entries, or one that is no object")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {BROKEN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise broken(path, error) from None
    return rows
