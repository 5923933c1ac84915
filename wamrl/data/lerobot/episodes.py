"""Where each episode lies: meta/episodes (v3.0) or meta/episodes.jsonl (v2.1), and the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wamrl.data.lerobot.schema import BROKEN, MAX_EPISODES, V21, WRONG, Info, inside
from wamrl.data.lerobot.tables import open_parquet, read_batches, read_jsonl

EXTRA_VERSION = 1
LAST_FRAME = "wamrl/last_frame/"  # + camera: a PNG
EXTRA = ("wamrl/version", "wamrl/success", "wamrl/stages", "wamrl/seed", "wamrl/last_state")
_MAX_FILES = 100_000


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What our own writer adds to an episode."""

    success: bool | None  # None: unknown
    stages: int
    seed: int
    last_state: np.ndarray  # float32 (P,)


@dataclass(frozen=True, kw_only=True)
class Span:
    """One episode's place."""

    number: int  # as its rows say: not its place where earlier episodes were taken out
    first: int | None  # value of `index` in its first row; None: not told
    rows: int
    data: Path
    videos: dict[str, tuple[Path, float]]  # camera -> file, second of the first frame
    meta: tuple[Path, int, int] | None = None  # file of meta/episodes, row group, row in it
    extra: Extra | None = None


def read_spans(info: Info, cameras: list[str]) -> list[Span]:
    """All episodes in order; `cameras`: the keys whose videos are wanted."""
    spans = _spans_v21(info, cameras) if info.version == V21 else _spans_v30(info, cameras)
    frames = sum(s.rows for s in spans)
    if len(spans) != info.episodes or frames != info.frames:
        raise ValueError(
            f"{info.root}: info.json says {info.episodes} episodes of {info.frames} frames, meta/ "
            f"lists {len(spans)} episodes of {frames} frames: if the others were taken out on "
            "purpose, correct total_episodes and total_frames in meta/info.json, else copy it again"
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
            raise ValueError(f"{path} has no columns task and task_index: {WRONG}")
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
            f"{info.root}: a task lacks its index or its text, or comes twice: {WRONG}"
        )
    return dict(pairs)


def episode_files(info: Info) -> list[Path]:
    """The parquet files of meta/episodes."""
    found = sorted((info.root / "meta/episodes").glob("*/*.parquet"))
    if not 0 < len(found) <= _MAX_FILES:
        raise ValueError(f"{info.root}/meta/episodes has {len(found)} parquet files: {BROKEN}")
    return [inside(info.root, str(path.relative_to(info.root))) for path in found]


def missing_numbers(spans: list[Span]) -> list[int]:
    """Of episodes that were taken out: what the numbers of the others leave out."""
    present = {span.number for span in spans}
    return [number for number in range(spans[-1].number) if number not in present]


def _spans_v21(info: Info, cameras: list[str]) -> list[Span]:
    spans: list[Span] = []
    for row in read_jsonl(inside(info.root, "meta/episodes.jsonl"), MAX_EPISODES):
        number = _number(info, row.get("episode_index"), spans)
        at = {"episode_chunk": number // info.chunks_size, "episode_index": number}
        videos = {
            key: (info.file(info.video_path or "", video_key=key, **at), 0.0) for key in cameras
        }
        rows = _whole(info, row.get("length"), f"episode {number}: length", info.frames, least=1)
        data = info.file(info.data_path, video_key="", **at)
        spans.append(Span(number=number, first=None, rows=rows, data=data, videos=videos))
    return spans


def _spans_v30(info: Info, cameras: list[str]) -> list[Span]:
    wanted = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
    wanted += ["data/chunk_index", "data/file_index"]
    for key in cameras:
        wanted += [
            f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")
        ]
    spans: list[Span] = []
    for path in episode_files(info):
        file = open_parquet(path)
        names = file.schema_arrow.names
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(f"{path} has no column {missing[0]!r}: {WRONG}")
        if len(spans) + file.metadata.num_rows > info.episodes:
            raise ValueError(
                f"{info.root}: info.json says {info.episodes} episodes, but there are more: {WRONG}"
            )
        columns = wanted + [name for name in EXTRA if name in names]
        for group in range(file.num_row_groups):
            rows = (
                row
                for batch in read_batches(file, path, group, columns)
                for row in batch.to_pylist()
            )
            for place, row in enumerate(rows):
                spans.append(_span(info, cameras, row, spans, (path, group, place)))
    return spans


def _span(
    info: Info, cameras: list[str], row: dict, before: list[Span], meta: tuple[Path, int, int]
) -> Span:
    index = _number(info, row["episode_index"], before)
    rows = _whole(info, row["length"], f"episode {index}: length", info.frames, least=1)
    end = before[-1].first + before[-1].rows if before else 0
    # rows are left out where episodes are
    next_to = index == (before[-1].number + 1 if before else 0)
    first = row["dataset_from_index"]
    fits = type(first) is int and (first == end or (first > end and not next_to))
    if not fits or row["dataset_to_index"] != first + rows:
        raise ValueError(
            f"{info.root}: episode {index} overlaps its neighbour or leaves a gap: {WRONG}"
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
            raise ValueError(f"{info.root}: episode {index} begins at {second} of a video: {WRONG}")
        videos[key] = (
            info.file(info.video_path or "", video_key=key, **place(f"videos/{key}/")),
            float(second),
        )
    data = info.file(info.data_path, video_key="", **place("data/"))
    extra = _extra(info, row, index)
    return Span(
        number=index, first=first, rows=rows, data=data, videos=videos, meta=meta, extra=extra
    )


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
        not (success is None or type(success) is bool)
        or type(stages) is not int
        or type(seed) is not int
        or not isinstance(state, list)
    ):
        raise ValueError(
            f"{info.root}: episode {index} lacks some of the columns {', '.join(EXTRA)}: {WRONG}"
        )
    last = np.array([np.nan if v is None else v for v in state], dtype=np.float32)
    if not np.isfinite(last).all():
        raise ValueError(
            f"{info.root}: the last state of episode {index} holds NaN or infinity: {WRONG}"
        )
    return Extra(success=success, stages=stages, seed=seed, last_state=last)


def _number(info: Info, found: object, before: list[Span]) -> int:
    """The episode's own number, above those before it."""
    least = before[-1].number + 1 if before else 0
    if type(found) is not int or not least <= found < MAX_EPISODES:
        raise ValueError(
            f"{info.root}: episode {found} stands where {least} belongs, or a later one: {WRONG}"
        )
    return found


def _whole(info: Info, value: object, what: str, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"{info.root}: {what} is {value!r}, expected an integer from {least} to {most}: {WRONG}"
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
                    f"{info.root}: episode {number} overlaps another one in {path}: {WRONG}"
                )
            ends[path] = begin + span.rows / info.fps
