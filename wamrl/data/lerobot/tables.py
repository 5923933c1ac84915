"""Parquet and JSON lines into numpy columns, every size checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.data.lerobot.schema import BROKEN, MAX_DIM, WRONG
from wamrl.data.lfs import advice

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_COLUMN_BYTES = 1 << 33  # one numeric column of a whole dataset in memory
MAX_GROUP_BYTES = 1 << 30  # of images, texts or metadata in one row group
_BATCH_BYTES = 1 << 28
_MAX_JSONL_BYTES = 1 << 28


def arrow() -> tuple:
    """(pyarrow, pyarrow.parquet)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(
            f"LeRobot datasets need pyarrow ({error}): pip install -e '.[data]' in the "
            "clone of wamrl"
        ) from None
    return pa, pq


def open_parquet(path: Path) -> pq.ParquetFile:
    """A table whose pages are checked as they are read; ValueError if missing or broken."""
    _, pq = arrow()
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)  # where the writer left some
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: {BROKEN}") from None
    except Exception as error:  # whatever pyarrow makes of broken bytes
        raise broken(path, error) from None


def broken(path: Path, error: Exception) -> ValueError:
    """What to tell a user of a file that pyarrow cannot read."""
    what = (str(error) or repr(error)).splitlines()[0]
    return ValueError(f"{path} is corrupt or truncated ({what}): {advice(path, BROKEN)}")


def read_batches(
    file: pq.ParquetFile,
    path: Path,
    group: int,
    columns: Sequence[str],
    most: int = MAX_DIM,
    limit: int = MAX_GROUP_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Some columns of one row group, a few rows at a time.

    most: numbers per cell; limit: bytes in all.
    Both are watched, since dictionaries let a small file say very much.
    """
    try:
        meta = file.metadata.row_group(group)
        size = 1
        for number in range(meta.num_columns):
            column = meta.column(number)
            if (
                column.path_in_schema in columns
                or column.path_in_schema.split(".list.")[0] in columns
            ):
                if column.num_values > most * meta.num_rows:
                    raise ValueError(
                        f"{column.num_values} values in {meta.num_rows} rows of "
                        f"{column.path_in_schema}"
                    )
            if any(column.path_in_schema.startswith(name) for name in columns):
                size += column.total_uncompressed_size
        if size > limit:
            raise ValueError(f"a row group of {size} bytes: write it in smaller ones")
        rows = max(1, min(65536, _BATCH_BYTES // size))
        total = 0
        for batch in file.iter_batches(
            rows, row_groups=[group], columns=list(columns), use_threads=False
        ):
            if (total := total + batch.nbytes) > limit:
                raise ValueError(
                    f"a row group of more than {limit} bytes: write it in smaller ones"
                )
            yield batch
    except Exception as error:
        raise broken(path, error) from None


def fill_columns(path: Path, into: dict[str, np.ndarray], start: int) -> int:
    """Read the numeric columns of a file into rows `start`...
    of the arrays (rows, dim); the next start.
    """
    file = open_parquet(path)
    if missing := [key for key in into if key not in file.schema_arrow.names]:
        raise ValueError(f"{path} has no column {missing[0]!r}, which info.json promises: {WRONG}")
    most = max(array.shape[1] for array in into.values())
    for group in range(file.num_row_groups):
        for batch in read_batches(file, path, group, list(into), most, MAX_COLUMN_BYTES):
            if any(start + len(batch) > len(array) for array in into.values()):
                raise ValueError(f"{path} has more rows than info.json says: {WRONG}")
            for key, array in into.items():
                column = batch.column(key)
                cells = numbers(column, array.shape[1], array.dtype, f"{path}: {key}", start)
                array[start : start + len(batch)] = cells
            start += len(batch)
    return start


def numbers(array: pa.Array, dim: int, dtype: np.dtype, where: str, first: int) -> np.ndarray:
    """A column of numbers, or of lists of `dim` numbers: (rows, dim).
    Finite, and within the range of `dtype`. first: number of the first row, for the sentence.
    """
    pa, _ = arrow()
    rows = len(array)
    if array.null_count:
        row = first + array.is_null().to_numpy(zero_copy_only=False).argmax()
        raise ValueError(f"{where} has empty cells, first in row {row}: {WRONG}")
    if (
        pa.types.is_fixed_size_list(array.type)
        or pa.types.is_list(array.type)
        or pa.types.is_large_list(array.type)
    ):
        if (
            not pa.types.is_fixed_size_list(array.type)
            and (np.diff(array.offsets.to_numpy()) != dim).any()
        ):
            raise ValueError(f"{where} has lists of other lengths than {dim}: {WRONG}")
        array = array.flatten()
    kind = array.type
    if (
        not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))
        or array.null_count
    ):
        raise ValueError(f"{where} is of type {kind}, expected numbers: {WRONG}")
    values = array.to_numpy(zero_copy_only=False)
    if len(values) != rows * dim:
        raise ValueError(
            f"{where} has {len(values)} numbers in {rows} rows, expected {dim} per row: {WRONG}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        out = values.astype(dtype).reshape(rows, dim)
    if np.issubdtype(dtype, np.floating) and not np.isfinite(out).all():
        row = first + (~np.isfinite(out)).any(1).argmax()
        raise ValueError(
            f"{where} holds NaN or infinity, first in row {row} of the dataset: remove that episode"
        )
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
