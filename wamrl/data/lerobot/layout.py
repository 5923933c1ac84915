"""How lerobot 0.4 and later lays out tables and features, column by column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wamrl.data.lerobot.tables import arrow
from wamrl.data.lerobot.video import CODECS

SCALARS = {"timestamp": "float32"} | dict.fromkeys(
    ("frame_index", "episode_index", "index", "task_index"), "int64"
)
SCALARS |= dict.fromkeys(("next.done", "next.success"), "bool")


def vector(dtype: str, dim: int, names: Sequence[str] | None) -> dict:
    """A feature of info.json."""
    if names is not None and len(names) != dim:
        raise ValueError(f"there are {len(names)} names for {dim} numbers: give one each")
    return {"dtype": dtype, "shape": [dim], "names": None if names is None else list(names)}


def camera(hw: tuple[int, int], fps: int, how: dict | None) -> dict:
    """A feature of info.json; `how`: codec, gop, crf of a video, None: PNG."""
    feature = {
        "dtype": "video" if how else "image",
        "shape": [*hw, 3],
        "names": ["height", "width", "channels"],
    }
    if how:
        info = {
            "height": hw[0],
            "width": hw[1],
            "codec": "av1" if how["codec"] == "libsvtav1" else "h264",
            "pix_fmt": "yuv420p",
            "fps": fps,
            "channels": 3,
            "g": how["gop"],
            "crf": how["crf"],
        }
        if "preset" in CODECS[how["codec"]]:
            info["preset"] = int(CODECS[how["codec"]]["preset"])
        feature["info"] = {f"video.{k}": v for k, v in info.items()} | {
            "is_depth_map": False,
            "has_audio": False,
        }
    return feature


def data_table(columns: dict[str, np.ndarray], cells: dict[str, list[bytes]]):
    """One episode: numbers (rows,) or (rows, D), and PNGs,
    with the types that `datasets` expects.
    """
    pa, _ = arrow()
    arrays = {}
    types = {}
    for key, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).ravel())
        kind = {"dtype": str(values.dtype), "_type": "Value"}
        wide = values.ndim == 2 and values.shape[1] > 1
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
        types[key] = (
            {"feature": kind, "length": values.shape[1], "_type": "Sequence"} if wide else kind
        )
    for key, pngs in cells.items():
        paths = pa.array([f"frame-{i:06d}.png" for i in range(len(pngs))])
        arrays[key] = pa.StructArray.from_arrays(
            [pa.array(pngs, pa.binary()), paths], ["bytes", "path"]
        )
        types[key] = {"_type": "Image"}
    described = {"huggingface": json.dumps({"info": {"features": types}})}
    return pa.table(arrays).replace_schema_metadata(described)


def episodes_table(rows: list[dict]):
    """Rows of meta/episodes: all with the same keys; numpy arrays become lists."""
    pa, _ = arrow()
    columns = {}
    kinds = {"wamrl/last_state": pa.list_(pa.float32()), "wamrl/success": pa.bool_()}
    for key in rows[0]:
        values = [
            row[key].tolist() if isinstance(row[key], np.ndarray) else row[key] for row in rows
        ]
        columns[key] = pa.array(values, kinds.get(key))
    return pa.table(columns)


def write_tasks(path: Path, tasks: list[str]) -> None:
    """meta/tasks.parquet: a pandas frame whose index is the text."""
    pa, pq = arrow()
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    number = {
        "name": "task_index",
        "field_name": "task_index",
        "pandas_type": "int64",
        "numpy_type": "int64",
    }
    text = {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"}
    labels = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [labels | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [column | {"metadata": None} for column in (number, text)],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)
