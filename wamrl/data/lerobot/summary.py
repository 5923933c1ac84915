"""What is in a dataset, without reading its frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from wamrl.data.lerobot.reader import open_lerobot
from wamrl.data.lerobot.schema import read_info


def inspect(path: Path | str) -> dict:
    """format, version, robot_type, fps, episodes, frames (rows), features, views, tasks (text ->
    episodes), successes, lengths (min, mean, max control steps), codecs (camera -> codec), bytes
    (data, videos, meta) and notes.

    All numbers are read and checked; ValueError as `open_lerobot`.
    """
    root = Path(path)
    info = read_info(root)
    recording = open_lerobot(root, image_hw=info.cameras[0].image_hw if info.cameras else None)
    lengths = [fact.length for fact in recording.facts]
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
        "views": list(recording.views),
        "tasks": dict(Counter(fact.text for fact in recording.facts)),
        "successes": sum(fact.success for fact in recording.facts),
        "lengths": {"min": min(lengths), "mean": sum(lengths) / len(lengths), "max": max(lengths)},
        "codecs": {
            c.key: str(c.info.get("video.codec", "PNG" if c.dtype == "image" else "?"))
            for c in info.cameras
        },
        "bytes": {name: size_of(root / name) for name in ("data", "videos", "meta")},
        "notes": recording.notes,
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())
