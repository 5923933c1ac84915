"""Where each episode lies: meta/episodes (v3.0) or meta/episodes.jsonl (v2.1), and the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wamrl.data.lerobot.schema import BROKEN, MAX_EPISODES, V21, Info, inside
from wamrl.data.lerobot.tables import open_parquet, read_batches, read_jsonl

EXTRA_VERSION = 1
LAST_FRAME = "wamrl/last_frame/"  # + camera: a PNG
EXTRA = ("wamrl/version", "wamrl/success", "wamrl/stages", "wamrl/seed", "wamrl/last_state")
_MAX_FILES = 100_000


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What our own writer adds to an episode."""

    success: bool
    stages: int
    seed: int
    last_state: np.ndarray  # float32 (P,)


@dataclass(frozen=True, kw_only=True)
class Span:
    """One episode's place."""

    rows: int
    data: Path
    videos: dict[str, tuple[Path, float]]  # camera -> file, second of the first frame
    meta: tuple[Path, int, int] | None = None  # file of meta/episodes, row group, row in it
    extra: Extra | None = None


def read_spans(info: Info, cameras: list[str]) -> list[Span]:
    """All episodes in order; `cameras`: the keys whose videos are wanted."""
    spans = _spans_v21(info, cameras) if info.version == V21 else _spans_v30(info, cameras)
    if len(spans) != info.episodes or (frames := sum(s.rows for s in spans)) != info.frames:
        found = f"{len(spans)} episodes" if len(spans) != info.episodes else f"{frames} frames"
        raise ValueError(
            f"{info.root}: info.json says {info.episodes} episodes of {info.frames} frames, there "
            f"are {found}: {BROKEN}"
        )
    if any(s.extra is None for s in spans):  # foreign, or merged with something foreign
        spans = [replace(s, extra=None) for s in spans]
    _check_videos(info, spans, cameras)
    return spans


def read_tasks(info: Info) -> dict[int, str]:
    """task_index -> instruction."""
    if info.version == V21:
        rows = read_jsonl(inside(info.root, "meta/tasks.jsonl"), MAX_EPISODES)
        pairs = [(row.get("task_index"), row.get("task")) for row in rows]
    else:
        path = inside(info.root, "meta/tasks.parquet")
        file = open_parquet(path)
        names = file.schema_arrow.names
        text = next((n for n in ("task", "__index_level_0__") if n in names), None)
        if text is None or "task_index" not in names or file.metadata.num_rows > MAX_EPISODES:
            raise ValueError(f"{path} has no columns task and task_index: {BROKEN}")
        pairs = []
        for group in range(file.num_row_groups):
            for batch in read_batches(file, path, group, ["task_index", text]):
                pairs += zip(
                    batch.column("task_index").to_pylist(),
                    batch.column(text).to_pylist(),
                    strict=True,
                )
    if any(type(i) is not int or type(t) is not str for i, t in pairs) or len(dict(pairs)) != len(
        pairs
    ):
        raise ValueError(
            f"{info.root}: a task lacks its index or its text, or comes twice: {BROKEN}"
        )
    return dict(pairs)


def episode_files(info: Info) -> list[Path]:
    """The parquet files of meta/episodes."""
    found = sorted((info.root / "meta/episodes").glob("*/*.parquet"))
    if not 0 < len(found) <= _MAX_FILES:
        raise ValueError(f"{info.root}/meta/episodes has {len(found)} parquet files: {BROKEN}")
    return [inside(info.root, str(path.relative_to(info.root))) for path in found]


def _spans_v21(info: Info, cameras: list[str]) -> list[Span]:
    spans = []
    for number, row in enumerate(
        read_jsonl(inside(info.root, "meta/episodes.jsonl"), MAX_EPISODES)
    ):
        _check_order(info, row.get("episode_index"), number)
        at = {"episode_chunk": number // info.chunks_size, "episode_index": number}
        videos = {
            key: (info.file(info.video_path or "", video_key=key, **at), 0.0) for key in cameras
        }
        rows = _whole(info, row.get("length"), f"episode {number}: length", info.frames, least=1)
        spans.append(
            Span(rows=rows, data=info.file(info.data_path, video_key="", **at), videos=videos)
        )
    return spans


def _spans_v30(info: Info, cameras: list[str]) -> list[Span]:
    wanted = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
    wanted += ["data/chunk_index", "data/file_index"]
    for key in cameras:
        wanted += [
            f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")
        ]
    spans: list[Span] = []
    start = 0
    for path in episode_files(info):
        file = open_parquet(path)
        names = file.schema_arrow.names
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"{path} has no column {missing[0]!r}: {BROKEN}")
        if len(spans) + file.metadata.num_rows > info.episodes:
            raise ValueError(
                f"{info.root}: info.json says {info.episodes} episodes, but there are more: "
                f"{BROKEN}"
            )
        columns = wanted + [name for name in EXTRA if name in names]
        for group in range(file.num_row_groups):
            rows = (
                row
                for batch in read_batches(file, path, group, columns)
                for row in batch.to_pylist()
            )
            for number, row in enumerate(rows):
                spans.append(_span(info, cameras, row, len(spans), start, (path, group, number)))
                start += spans[-1].rows
    return spans


def _span(
    info: Info, cameras: list[str], row: dict, index: int, start: int, meta: tuple[Path, int, int]
) -> Span:
    _check_order(info, row["episode_index"], index)
    rows = _whole(info, row["length"], f"episode {index}: length", info.frames, least=1)
    if (row["dataset_from_index"], row["dataset_to_index"]) != (start, start + rows):
        raise ValueError(
            f"{info.root}: episode {index} overlaps its neighbour or leaves a gap: {BROKEN}"
        )

    def place(prefix: str) -> dict[str, int]:
        names = ("chunk_index", "file_index")
        return {
            n: _whole(info, row[prefix + n], f"episode {index}: {prefix}{n}", MAX_EPISODES)
            for n in names
        }

    videos = {}
    for key in cameras:
        second = row[f"videos/{key}/from_timestamp"]
        if type(second) not in (int, float) or not math.isfinite(second) or second < 0:
            raise ValueError(
                f"{info.root}: episode {index} begins at {second} of a video: {BROKEN}"
            )
        videos[key] = (
            info.file(info.video_path or "", video_key=key, **place(f"videos/{key}/")),
            float(second),
        )
    data = info.file(info.data_path, video_key="", **place("data/"))
    return Span(rows=rows, data=data, videos=videos, meta=meta, extra=_extra(info, row, index))


def _extra(info: Info, row: dict, index: int) -> Extra | None:
    if EXTRA[0] not in row or row[EXTRA[0]] is None:
        return None
    version, success, stages, seed, state = (row.get(name) for name in EXTRA)
    if version != EXTRA_VERSION:
        raise ValueError(
            f"{info.root}: wamrl/version is {version}, this wamrl reads {EXTRA_VERSION}: update "
            "wamrl"
        )
    if (
        type(success) is not bool
        or type(stages) is not int
        or type(seed) is not int
        or not isinstance(state, list)
    ):
        raise ValueError(
            f"{info.root}: episode {index} lacks some of the columns {', '.join(EXTRA)}: {BROKEN}"
        )
    last = np.array([np.nan if v is None else v for v in state], dtype=np.float32)
    if not np.isfinite(last).all():
        raise ValueError(
            f"{info.root}: the last state of episode {index} holds NaN or infinity: {BROKEN}"
        )
    return Extra(success=success, stages=stages, seed=seed, last_state=last)


def _check_order(info: Info, found: object, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{info.root}: episode {found} stands where {expected} belongs: {BROKEN}")


def _whole(info: Info, value: object, what: str, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{info.root}: {what} is {value!r}, expected an integer from {least} to {most}: "
            f"{BROKEN}"
        )
    return value


def _check_videos(info: Info, spans: list[Span], cameras: list[str]) -> None:
    """Within a file the episodes follow each other; every file is there."""
    for key in cameras:
        ends: dict[Path, float] = {}
        for number, span in enumerate(spans):
            path, begin = span.videos[key]
            if path not in ends and not path.is_file():
                raise ValueError(f"{path} is missing: {BROKEN}")
            if begin < ends.get(path, 0.0) - 0.5 / info.fps:
                raise ValueError(
                    f"{info.root}: episode {number} overlaps another one in {path}: {BROKEN}"
                )
            ends[path] = begin + span.rows / info.fps
