"""The numeric columns of a dataset, whole and in memory, checked against what meta/ says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wamrl.data.lerobot.episodes import Span, missing_numbers
from wamrl.data.lerobot.schema import WRONG, Info
from wamrl.data.lerobot.tables import MAX_COLUMN_BYTES, fill_columns, open_parquet

_INDICES = ("episode_index", "frame_index", "index", "task_index")


def read_columns(
    info: Info, spans: list[Span], keys: list[str]
) -> tuple[dict[str, np.ndarray], dict[Path, int]]:
    """`keys`, timestamp (float32) and the indices (int64), each (rows, D);
    and the first row of every file.
    """
    kinds = dict.fromkeys([*keys, "timestamp"], np.float32) | dict.fromkeys(_INDICES, np.int64)
    for key, kind in kinds.items():
        feature = info.feature(key)
        if feature.dtype in ("image", "video", "string", "language") or len(feature.shape) > 1:
            raise ValueError(
                f"{info.root}: {key} is {feature.dtype} {feature.shape}, expected numbers: choose "
                "another feature"
            )
        if info.frames * feature.dim * np.dtype(kind).itemsize > MAX_COLUMN_BYTES:
            raise ValueError(f"{info.root}: {key} would not fit into memory: split the dataset")
    files = dict.fromkeys(span.data for span in spans)
    if (total := sum(open_parquet(path).metadata.num_rows for path in files)) != info.frames:
        raise ValueError(
            f"{info.root}: info.json says {info.frames} frames, the data files have {total}: "
            f"{WRONG}"
        )
    arrays = {
        key: np.empty((info.frames, info.features[key].dim), kind) for key, kind in kinds.items()
    }
    starts: dict[Path, int] = {}
    end = 0
    for path in files:
        starts[path] = end
        end = fill_columns(path, arrays, end)
    _check(info, spans, arrays, starts)
    return arrays, starts


def _check(
    info: Info, spans: list[Span], arrays: dict[str, np.ndarray], starts: dict[Path, int]
) -> None:
    """Every row is where meta/ says."""
    lengths = np.array([span.rows for span in spans])
    first = np.cumsum([0, *lengths[:-1]])
    frame = np.arange(info.frames) - np.repeat(first, lengths)
    index = arrays["index"][:, 0]
    begins = index[first] if _own_index(spans, index, first, lengths) else first
    for key, values in {
        "episode_index": np.repeat([span.number for span in spans], lengths),
        "frame_index": frame,
        "index": np.repeat(begins, lengths) + frame,
    }.items():
        if (wrong := arrays[key][:, 0] != values).any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{info.root}: {key} of row {row} is {arrays[key][row, 0]}, out of order: {WRONG}"
            )
    late = np.abs(arrays["timestamp"][:, 0] - frame / info.fps) >= 0.5 / info.fps
    if late.any():
        raise ValueError(
            f"{info.root}: the timestamp of row {late.argmax()} is not frame_index / fps: {WRONG}"
        )
    ends = [*starts.values(), info.frames]
    spread = {path: (ends[n], ends[n + 1]) for n, path in enumerate(starts)}
    for number, span in enumerate(spans):
        low, high = spread[span.data]
        if not low <= first[number] < first[number] + span.rows <= high:
            raise ValueError(
                f"{info.root}: episode {number} is not in {span.data.name}, where meta/ says: "
                f"{WRONG}"
            )


def _own_index(
    spans: list[Span], index: np.ndarray, first: np.ndarray, lengths: np.ndarray
) -> bool:
    """May the rows be numbered as they were before episodes between them were taken out?"""
    if not missing_numbers(spans):
        return False
    told = [span.first for span in spans]
    if None not in told:
        return bool((index[first] == told).all())
    return bool((index[first][1:] >= (index[first] + lengths)[:-1]).all() and index[0] >= 0)
