"""Episodes on disk: a folder of `episodes.safetensors` and `index.json`, written whole or not at all.

episodes.safetensors: the episodes one after the other, `frames` uint8 (R, V, H, W, 3) and `proprio` float32 (R, P) with
S+1 rows per episode, `actions` and `executed` float32 (Q, A) with S rows. index.json: format, version, the spec of the
environment, per episode length (S), success, stages, seed, text, and the sha256 of the tensors and of the index itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from wamrl.types import Episode

if TYPE_CHECKING:
    from wamrl.envs.base import EnvSpec

FORMAT, VERSION = "wamrl-episodes", 1
_TENSORS, _INDEX = "episodes.safetensors", "index.json"
_MAX_INDEX_BYTES = 1 << 28  # a million episodes
_ADVICE = "record the demonstrations again with `wamrl demos`, or name another folder"
_COLUMNS = {"frames": np.uint8, "proprio": np.float32, "actions": np.float32, "executed": np.float32}
_FACTS = {"length": int, "success": bool, "stages": int, "seed": int, "text": str}


def save(episodes: Sequence[Episode], spec: EnvSpec, path: Path) -> None:
    """Write the new folder `path`; ValueError of one sentence if something is there, or writing fails."""
    if not episodes:
        raise ValueError("there is no episode to save: record at least one")
    tensors = {name: np.concatenate([getattr(e, name) for e in episodes]) for name in _COLUMNS}
    rows = [{"length": len(e.actions)} | {k: getattr(e, k) for k in _FACTS if k != "length"} for e in episodes]
    index = {"format": FORMAT, "version": VERSION, "spec": asdict(spec), "episodes": rows}
    _check(tensors, index, "these episodes")
    _write(Path(path), tensors, index)


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
        if _file_digest(Path(path) / _TENSORS) != index.get("sha256_tensors"):
            raise ValueError("corrupt: its sha256 is not the recorded one")
        tensors = load_file(Path(path) / _TENSORS)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}/{_TENSORS} is not readable ({error}): {_ADVICE}") from error
    _check(tensors, index, str(path))
    return _split(tensors, index["episodes"])


def load_spec(path: Path) -> dict:
    """The `EnvSpec` of the recorded environment, as plain JSON."""
    return _read_index(Path(path))["spec"]


def _write(path: Path, tensors: dict[str, np.ndarray], index: dict) -> None:
    """Fill a folder beside `path`, then rename it, so that nobody ever sees half of it."""
    if path.exists():
        raise ValueError(f"{path} exists already: delete it or name another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
        try:
            save_file(tensors, draft / _TENSORS)
            index = index | {"sha256_tensors": _file_digest(draft / _TENSORS)}
            index = index | {"sha256_index": _index_digest(index)}
            (draft / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
            for name in (_TENSORS, _INDEX):
                with open(draft / name, "rb") as file:
                    os.fsync(file)
            draft.chmod(0o755)
            os.rename(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; free space or name another folder"
        ) from error


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _index_digest(index: dict) -> str:
    """sha256 of everything in the index but itself."""
    rest = {key: value for key, value in index.items() if key != "sha256_index"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_index(path: Path) -> dict:
    try:
        if (size := (path / _INDEX).stat().st_size) > _MAX_INDEX_BYTES:
            raise ValueError(f"it has {size} bytes")
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there are no demonstrations in {path} (no {_INDEX}): {_ADVICE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}/{_INDEX} is not readable ({error}): {_ADVICE}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is not a folder of demonstrations: {_ADVICE}")
    if index.get("version") != VERSION:
        raise ValueError(f"{path} has version {index.get('version')}, this wamrl reads version {VERSION}: {_ADVICE}")
    if index.get("sha256_index") != _index_digest(index):
        raise ValueError(f"{path}/{_INDEX} is corrupt (its sha256 is not the recorded one): {_ADVICE}")
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
