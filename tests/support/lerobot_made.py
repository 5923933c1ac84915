"""Datasets for the tests: episodes of moving colours, and a writer of the old v2.1 layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from wamrl.data.lerobot import images, layout, stats, video
from wamrl.types import Episode

pa = pytest.importorskip("pyarrow", reason="needs wamrl[data]", exc_type=ImportError)
pq = pytest.importorskip("pyarrow.parquet")


def episode(
    steps: int, number: int = 0, views: int = 1, hw: tuple[int, int] = (16, 24), action_dim: int = 2
) -> Episode:
    """A smooth picture in which every frame, view and episode is another colour."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]] / max(hw)
    frames = np.empty((steps + 1, views, *hw, 3), dtype=np.uint8)
    for step in range(steps + 1):
        for view in range(views):
            red, green = 60 + 40 * x + 12 * (step % 8), 40 + 50 * y + 60 * view
            frames[step, view] = np.stack(
                [red, green, np.full(hw, 30 + 25 * (number % 8))], axis=-1
            )
    actions = rng.normal(size=(steps, action_dim)).astype(np.float32)
    return Episode(
        frames=frames,
        proprio=rng.normal(size=(steps + 1, 3)).astype(np.float32),
        actions=actions,
        executed=actions + rng.normal(size=actions.shape).astype(np.float32),
        success=bool(number % 2),
        stages=number % 3,
        seed=100 + number,
        text=f"task {number % 2}",
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Over all pixels, dB."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def write_v21(
    root: Path, episodes: Sequence[Episode], views: Sequence[str], fps: int = 10, movie: bool = True
) -> None:
    """All S + 1 frames and states of an episode become rows; the last action is repeated."""
    keys = [f"observation.images.{v}" for v in views]
    tasks = list(dict.fromkeys(e.text for e in episodes))
    lines: dict[str, list[dict]] = {"episodes": [], "episodes_stats": [], "tasks": []}
    start = 0
    for number, e in enumerate(episodes):
        rows = len(e.proprio)
        frame = np.arange(rows)
        columns = {
            "observation.state": e.proprio,
            "action": np.concatenate([e.actions, e.actions[-1:]]),
            "timestamp": (frame / fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(rows, number),
            "index": start + frame,
            "task_index": np.full(rows, tasks.index(e.text)),
            "next.done": frame == rows - 1,
        }
        cells = (
            {}
            if movie
            else {k: [images.encode(f) for f in e.frames[:, i]] for i, k in enumerate(keys)}
        )
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(layout.data_table(columns, cells), path)
        for i, key in enumerate(keys if movie else []):
            out = video.Writer(
                root / f"videos/chunk-000/{key}/episode_{number:06d}.mp4",
                fps,
                e.frames.shape[2:4],
                "libsvtav1",
                2,
                30,
            )
            out.add(e.frames[:, i])
            out.close()
        found = {k: stats.of_column(v.reshape(rows, -1)) for k, v in columns.items()}
        found |= {k: stats.of_images(e.frames[:, i]) for i, k in enumerate(keys)}
        lines["episodes"].append({"episode_index": number, "tasks": [e.text], "length": rows})
        lines["episodes_stats"].append({"episode_index": number, "stats": stats.as_lists(found)})
        start += rows
    lines["tasks"] = [{"task_index": i, "task": t} for i, t in enumerate(tasks)]
    (root / "meta").mkdir()
    for name, entries in lines.items():
        (root / f"meta/{name}.jsonl").write_text(
            "".join(json.dumps(entry) + "\n" for entry in entries)
        )
    how = {"codec": "libsvtav1", "gop": 2, "crf": 30} if movie else None
    features = {
        "observation.state": layout.vector("float32", episodes[0].proprio.shape[1], None),
        "action": layout.vector("float32", episodes[0].actions.shape[1], None),
        **{key: layout.camera(episodes[0].frames.shape[2:4], fps, how) for key in keys},
        **{
            key: layout.vector(dtype, 1, None)
            for key, dtype in layout.SCALARS.items()
            if key != "next.success"
        },
    }
    info = {
        "codebase_version": "v2.1",
        "robot_type": "made",
        "total_episodes": len(episodes),
        "total_frames": start,
        "total_tasks": len(tasks),
        "total_videos": len(episodes) * len(keys) * movie,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        if movie
        else None,
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def edit_json(path: Path, **changes: object) -> None:
    """Overwrite some keys of a JSON object on disk."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_parquet(path: Path, **columns: object) -> None:
    """Overwrite some columns; a function gets the old values as a list."""
    table = pq.read_table(path)
    for name, new in columns.items():
        values = new(table.column(name).to_pylist()) if callable(new) else new
        number = table.schema.get_field_index(name)
        kind = values.type if isinstance(values, pa.Array) else table.schema.field(name).type
        array = values if isinstance(values, pa.Array) else pa.array(values, kind)
        table = table.set_column(number, name, array)
    pq.write_table(table, path)


DATA = "data/chunk-000/file-000.parquet"
META = "meta/episodes/chunk-000/file-000.parquet"


def make_foreign(path: Path) -> None:
    """Take the columns that only we write out of a v3.0 dataset, and what is known of success."""
    table = pq.read_table(path / META)
    ours = [c for c in table.column_names if c.startswith("wamrl/") or "next.success" in c]
    pq.write_table(table.drop_columns(ours), path / META)
    change_features(path, lambda features: features.pop("next.success"))


def change_features(path: Path, change: Callable[[dict], object]) -> None:
    """`change` the features of info.json in place."""
    features = json.loads((path / "meta/info.json").read_text())["features"]
    change(features)
    edit_json(path / "meta/info.json", features=features)


def rename_features(path: Path, **names: str) -> None:
    """OLD=NEW with "__" for ".": features and columns of a PNG dataset."""
    new = {old.replace("__", "."): name.replace("__", ".") for old, name in names.items()}

    def rename(features: dict) -> None:
        for old, name in new.items():
            features[name] = features.pop(old)

    change_features(path, rename)
    for part in (DATA, META):
        table = pq.read_table(path / part)
        table = table.rename_columns([new.get(c, c) for c in table.column_names])
        pq.write_table(table.replace_schema_metadata(None), path / part)


def take_out(path: Path, number: int) -> None:
    """An episode of a PNG dataset, v3.0 or v2.1, by hand: the others keep their numbers."""
    info = json.loads((path / "meta/info.json").read_text())
    if info["codebase_version"] == "v2.1":
        lines = (path / "meta/episodes.jsonl").read_text().splitlines()
        rows = json.loads(lines.pop(number))["length"]
        (path / "meta/episodes.jsonl").write_text("\n".join(lines))
        (path / f"data/chunk-000/episode_{number:06d}.parquet").unlink()
    else:
        rows = 0
        for part in (DATA, META):
            table = pq.read_table(path / part)
            keep = [i != number for i in table.column("episode_index").to_pylist()]
            rows = rows or keep.count(False)
            pq.write_table(table.filter(pa.array(keep)), path / part)
    changes = {"total_episodes": info["total_episodes"] - 1}
    edit_json(path / "meta/info.json", **changes, total_frames=info["total_frames"] - rows)
