"""Episodes on disk: a folder of `episodes.safetensors`, `index.json` and a sha256 manifest, whole or not there.

episodes.safetensors: the episodes one after the other, `frames` uint8 (R, V, H, W, 3) and `proprio` float32 (R, P) with
S+1 rows per episode, `actions` and `executed` float32 (Q, A) with S rows. index.json: format, version, the spec of the
environment, and per episode length (S), success, stages, seed, text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from wamrl.files import atomic_folder, check_folder, read_json
from wamrl.types import Episode

if TYPE_CHECKING:
    from wamrl.envs.base import EnvSpec

FORMAT, VERSION = "wamrl-episodes", 1
_TENSORS, _INDEX = "episodes.safetensors", "index.json"
_ADVICE = "record the demonstrations again with `wamrl demos`, or name another folder"
_COLUMNS = {"frames": np.uint8, "proprio": np.float32, "actions": np.float32, "executed": np.float32}
_FACTS = {"length": int, "success": bool, "stages": int, "seed": int, "text": str}


def save(episodes: Sequence[Episode], spec: EnvSpec, path: Path) -> None:
    """Write the folder `path`, replacing demonstrations that lie there; ValueError if that is impossible."""
    if not episodes:
        raise ValueError("there is no episode to save: record at least one")
    tensors = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in _COLUMNS}
    rows = [{"length": len(e.actions)} | {k: getattr(e, k) for k in _FACTS if k != "length"} for e in episodes]
    index = {"format": FORMAT, "version": VERSION, "spec": asdict(spec), "episodes": rows}
    _check(tensors, index, "these episodes")
    with atomic_folder(path) as draft:
        save_file(tensors, draft / _TENSORS)
        (draft / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def load(path: Path, spec: EnvSpec | None = None) -> list[Episode]:
    """Read the folder; `spec`: also make sure that the episodes are of that environment.

    ValueError of one sentence if the folder is missing, corrupt, truncated, foreign, of another version or environment,
    or holds NaN.
    """
    index = _read_index(Path(path))
    if spec is not None and (mine := json.loads(json.dumps(asdict(spec)))) != index["spec"]:
        keys = ", ".join(k for k in mine if mine[k] != index["spec"].get(k))
        raise ValueError(f"{path} was recorded in another environment (it differs in {keys}): {_ADVICE}")
    try:
        tensors = load_file(Path(path) / _TENSORS)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}/{_TENSORS} is not readable ({error}): {_ADVICE}") from error
    _check(tensors, index, str(path))
    return _split(tensors, index["episodes"])


def load_spec(path: Path) -> dict:
    """The `EnvSpec` of the recorded environment, as plain JSON."""
    return _read_index(Path(path))["spec"]


def _read_index(path: Path) -> dict:
    check_folder(path, "folder of demonstrations", _ADVICE)
    index = read_json(path / _INDEX, "folder of demonstrations", _ADVICE)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is not a folder of demonstrations: {_ADVICE}")
    if index.get("version") != VERSION:
        raise ValueError(f"{path} has version {index.get('version')}, this wamrl reads version {VERSION}: {_ADVICE}")
    if not isinstance(index.get("spec"), dict) or not isinstance(index.get("episodes"), list) or not index["episodes"]:
        raise ValueError(f"{path}/{_INDEX} names no environment or no episodes: {_ADVICE}")
    for row in index["episodes"]:
        if not isinstance(row, dict) or any(type(row.get(k)) is not t for k, t in _FACTS.items()) or row["length"] < 1:
            raise ValueError(f"{path}/{_INDEX} describes an impossible episode: {_ADVICE}")
    return index


def _check(tensors: dict[str, np.ndarray], index: dict, where: str) -> None:
    """Shapes, dtypes and values; ValueError of one sentence."""
    try:
        spec, steps = index["spec"], sum(row["length"] for row in index["episodes"])
        seen = steps + len(index["episodes"])
        shapes = {
            "frames": (seen, len(spec["views"]), *spec["image_hw"], 3),
            "proprio": (seen, spec["proprio_dim"]),
            "actions": (steps, spec["action_dim"]),
            "executed": (steps, spec["action_dim"]),
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: the environment's spec is incomplete ({error}): {_ADVICE}") from error
    for name, dtype in _COLUMNS.items():
        array = tensors.get(name)
        if array is None or array.shape != shapes[name] or array.dtype != dtype:
            found = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(f"{where}: {name} is {found}, expected {np.dtype(dtype)} {shapes[name]}: {_ADVICE}")
        if dtype == np.float32 and not np.isfinite(array).all():
            raise ValueError(f"{where}: {name} holds NaN or infinity: {_ADVICE}")


def _split(tensors: dict[str, np.ndarray], rows: list[dict]) -> list[Episode]:
    episodes, step = [], 0
    for number, row in enumerate(rows):
        acts, seen = slice(step, step + row["length"]), slice(step + number, step + number + row["length"] + 1)
        columns = {k: v[seen if k in ("frames", "proprio") else acts] for k, v in tensors.items() if k in _COLUMNS}
        episodes.append(Episode(**columns, **{k: row[k] for k in _FACTS if k != "length"}))
        step += row["length"]
    return episodes
