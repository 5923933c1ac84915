"""What is in a dataset, without reading its frames, also where not all of it can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wamrl.data.lerobot.columns import read_columns
from wamrl.data.lerobot.episodes import read_spans, read_tasks
from wamrl.data.lerobot.reader import open_lerobot, short_name
from wamrl.data.lerobot.schema import Info, read_info
from wamrl.data.recording import Recording


def inspect(path: Path | str, **keys) -> dict:
    """format, version, robot_type, fps, episodes, frames (rows), features, views, tasks (text ->
    episodes), successes, unknown (episodes that do not say), lengths (min, mean, max control
    steps), codecs (camera -> codec), bytes (data, videos, meta) and notes, which say what cannot be
    used and why.

    keys: views, state_keys, action_key, success of `open_lerobot`. ValueError where meta/ or the
    columns that every dataset has are missing or broken.
    """
    root = Path(path)
    info = read_info(root)
    notes = [f"{f.key} is left out: {f.fault}" for f in info.features.values() if f.fault]
    views = _usable(info, notes)
    return {
        "format": "LeRobotDataset",
        "version": info.version,
        "robot_type": info.robot_type,
        "fps": info.fps,
        "episodes": info.episodes,
        "frames": info.frames,
        "features": {
            f.key: {"dtype": f.dtype, "shape": list(f.shape)} for f in info.features.values()
        },
        "views": views,
        **_episodes(info, {"views": views} | keys, notes),
        "codecs": {
            c.key: str(c.info.get("video.codec", "PNG" if c.dtype == "image" else "?"))
            for c in info.cameras
        },
        "bytes": {name: size_of(root / name) for name in ("data", "videos", "meta")},
        "notes": notes,
    }


def _usable(info: Info, notes: list[str]) -> list[str]:
    """Cameras whose pictures are there; what is wrong with the others goes into the notes."""
    views = []
    for camera in info.cameras:
        try:
            read_spans(info, [camera.key] if camera.dtype == "video" else [])
            views.append(short_name(camera.key))
        except ValueError as error:
            notes.append(f"{camera.key} is left out: {error}")
    return views


def _episodes(info: Info, keys: dict[str, Sequence[str]], notes: list[str]) -> dict:
    """tasks, successes and lengths: of the recording, or as far as the set tells without one."""
    try:
        hw = info.cameras[0].image_hw if info.cameras else None
        recording = open_lerobot(info.root, image_hw=hw, **keys)
    except ValueError as error:
        notes.append(f"cannot be trained on as it is: {error}")
    else:
        notes += recording.notes
        lengths = [fact.length for fact in recording.facts]
        return {
            "tasks": dict(Counter(fact.text for fact in recording.facts)),
            **count_successes(recording),
            "lengths": spread(lengths),
        }
    spans = read_spans(info, [])
    columns, _ = read_columns(info, spans, [])
    texts = read_tasks(info)
    tasks: Counter[str] = Counter()
    row = 0
    for span in spans:
        tasks[texts.get(int(columns["task_index"][row, 0]), "(not in meta/tasks)")] += 1
        row += span.rows
    lengths = [span.rows - (span.extra is None) for span in spans]
    return {
        "tasks": dict(tasks),
        "successes": 0,
        "unknown": len(spans),
        "lengths": spread(lengths),
    }


def count_successes(recording: Recording) -> dict[str, int]:
    """successes and unknown: episodes that succeeded, and that nobody knows about."""
    marks = [fact.success for fact in recording.facts]
    return {"successes": marks.count(True), "unknown": marks.count(None)}


def spread(lengths: list[int]) -> dict[str, float]:
    """Of the episodes' lengths."""
    return {"min": min(lengths), "mean": sum(lengths) / len(lengths), "max": max(lengths)}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())
