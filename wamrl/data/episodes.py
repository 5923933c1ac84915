"""Episodes on disk: a folder of `episodes.safetensors` and `index.json`,
written whole or not at all.

episodes.safetensors: the episodes one after the other, `frames` uint8 (R, V, H, W, 3) and `proprio`
float32 (R, P) with S+1 rows per episode, `actions` and `executed` float32 (Q, A) with S rows.
index.json: format, version, the spec of the environment, per episode length (S), success, stages,
seed, text, and the sha256 of the tensors and of the index itself. Frames are never all in memory,
neither when a folder is written nor when it is trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError

from wamrl.data.lfs import advice
from wamrl.data.recording import EpisodeInfo, InMemory, Origin, Recording, unknown_note
from wamrl.data.rows_file import RowsFile, RowsWriter
from wamrl.runtime.files import atomic_folder, require_file, sha256
from wamrl.types import Episode

if TYPE_CHECKING:
    from wamrl.envs.base import EnvSpec

FORMAT = "wamrl-episodes"
VERSION = 1
_TENSORS = "episodes.safetensors"
_INDEX = "index.json"
_MAX_INDEX_BYTES = 1 << 28  # a million episodes
_ADVICE = "record the demonstrations again with `wamrl demos`, or name another folder"
_COLUMNS = {
    "frames": np.uint8,
    "proprio": np.float32,
    "actions": np.float32,
    "executed": np.float32,
}
_FACTS = {
    "length": (int,),
    "success": (bool, type(None)),  # None: unknown
    "stages": (int,),
    "seed": (int,),
    "text": (str,),
}


def save(episodes: Sequence[Episode], spec: EnvSpec, path: Path) -> None:
    """Write the new folder `path`;
    ValueError of one sentence if something is there, or writing fails.
    """
    if not episodes:
        raise ValueError("there is no episode to save: record at least one")
    save_recording(InMemory(episodes), asdict(spec), path)


def save_recording(
    recording: Recording, spec: dict, path: Path, progress: Callable[[int], None] = lambda n: None
) -> None:
    """As `save`, episode by episode; `spec`: what `load_spec` will return;
    `progress(1)` after each episode.
    """
    index = {"format": FORMAT, "version": VERSION, "spec": json.loads(json.dumps(spec))}
    if recording.origin != Origin():
        kept = asdict(recording.origin)
        del kept["others"]
        index["spec"]["origin"] = json.loads(json.dumps(kept))
    index["episodes"] = [asdict(fact) for fact in recording.facts]
    shapes = _shapes(index, "these episodes")
    _check_numbers(
        {name: getattr(recording, name) for name in ("proprio", "actions", "executed")},
        shapes,
        str(path),
    )

    def fill(file: RowsWriter) -> None:
        for episode in recording.episodes():
            frames = episode.frames
            if frames.dtype != np.uint8 or frames.shape[1:] != shapes["frames"][1:]:
                found = f"{frames.dtype} {frames.shape}"
                expected = f"uint8 {shapes['frames']}"
                raise ValueError(f"these episodes: frames is {found}, expected {expected}")
            for name in _COLUMNS:
                file.append(name, getattr(episode, name))
            progress(1)

    _write(
        Path(path), index, {name: (dtype, shapes[name]) for name, dtype in _COLUMNS.items()}, fill
    )


class Stored(Recording):
    """A folder that `save` wrote. Frames are read from disk when they are asked for."""

    def __init__(self, file: RowsFile, index: dict) -> None:
        self._file = file
        self.facts = [
            EpisodeInfo(**{name: row[name] for name in _FACTS}) for row in index["episodes"]
        ]
        self.proprio, self.actions, self.executed = (
            file.all(name) for name in ("proprio", "actions", "executed")
        )
        self.views = tuple(index["spec"]["views"])
        self.image_hw = tuple(index["spec"]["image_hw"])
        self.origin = _origin(index["spec"].get("origin"))
        self.notes = unknown_note(self.facts)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        return self._file.take("frames", rows)


def open_store(path: Path, spec: EnvSpec | None = None) -> Stored:
    """Read the folder; `spec`: also make sure that the episodes are of that environment.

    ValueError of one sentence if the folder is missing, corrupt, truncated, foreign, of another
    version or environment, or holds NaN. Reads every byte once, for the checksum.
    """
    path = Path(path)
    index = _read_index(path)
    if spec is not None and (keys := _differing(spec, index["spec"])):
        raise ValueError(
            f"{path} was recorded in another environment (it differs in {', '.join(keys)}): "
            f"{_ADVICE}"
        )
    try:
        if sha256(path / _TENSORS) != index.get("sha256_tensors"):
            raise ValueError("corrupt: its sha256 is not the recorded one")
        file = RowsFile(path / _TENSORS)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path}/{_TENSORS} is not readable ({error}): {advice(path / _TENSORS, _ADVICE)}"
        ) from error
    shapes = _shapes(index, str(path))
    for name, dtype in _COLUMNS.items():
        if file.shapes.get(name) != shapes[name] or file.dtypes[name] != dtype:
            found = f"{file.dtypes[name]} {file.shapes[name]}" if name in file.shapes else "missing"
            raise ValueError(
                f"{path}: {name} is {found}, expected {np.dtype(dtype)} {shapes[name]}: {_ADVICE}"
            )
    stored = Stored(file, index)
    _check_numbers(
        {name: getattr(stored, name) for name in ("proprio", "actions", "executed")},
        shapes,
        str(path),
    )
    return stored


def load(path: Path, spec: EnvSpec | None = None) -> list[Episode]:
    """As `open_store`, with everything in memory."""
    return list(open_store(path, spec).episodes())


def _differing(spec: EnvSpec, saved: dict) -> list[str]:
    """Names of the fields that differ;
    fields that are younger than the recording count as their defaults, and a control rate that it
    does not name as the environment's.
    """
    defaults = {f.name: None if f.default is MISSING else f.default for f in fields(spec)}
    saved = {"control_hz": spec.control_hz} | saved
    mine, there = (json.loads(json.dumps(d)) for d in (asdict(spec), defaults | saved))
    return [k for k in mine if mine[k] != there[k]]


def load_spec(path: Path) -> dict:
    """The `EnvSpec` of the recorded environment, as plain JSON."""
    return _read_index(Path(path))["spec"]


def _write(path: Path, index: dict, tables: dict, fill: Callable[[RowsWriter], None]) -> None:
    """The tables that `fill` writes, and the index with the digests of both."""
    with atomic_folder(path) as draft:
        with RowsWriter(draft / _TENSORS, tables) as file:
            fill(file)
        index = index | {"sha256_tensors": sha256(draft / _TENSORS)}
        index = index | {"sha256_index": _index_digest(index)}
        (draft / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _index_digest(index: dict) -> str:
    """sha256 of everything in the index but itself."""
    rest = {key: value for key, value in index.items() if key != "sha256_index"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_index(path: Path) -> dict:
    try:
        require_file(path / _INDEX)
        if (size := (path / _INDEX).stat().st_size) > _MAX_INDEX_BYTES:
            raise ValueError(f"it has {size} bytes")
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"there are no demonstrations in {path} (no {_INDEX}): {_ADVICE}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}/{_INDEX} is not readable ({error}): {advice(path / _INDEX, _ADVICE)}"
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is not a folder of demonstrations: {_ADVICE}")
    if index.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {index.get('version')}, this wamrl reads version {VERSION}: "
            f"{_ADVICE}"
        )
    if index.get("sha256_index") != _index_digest(index):
        raise ValueError(
            f"{path}/{_INDEX} is corrupt (its sha256 is not the recorded one): {_ADVICE}"
        )
    if (
        not isinstance(index.get("spec"), dict)
        or not isinstance(index.get("episodes"), list)
        or not index["episodes"]
    ):
        raise ValueError(f"{path}/{_INDEX} names no environment or no episodes: {_ADVICE}")
    for row in index["episodes"]:
        if (
            not isinstance(row, dict)
            or any(k not in row or type(row[k]) not in types for k, types in _FACTS.items())
            or row["length"] < 1
        ):
            raise ValueError(f"{path}/{_INDEX} describes an impossible episode: {_ADVICE}")
    return index


def _origin(saved: object) -> Origin:
    """As `save_recording` has kept it; what is not as it was written is left out."""
    saved = saved if isinstance(saved, dict) else {}
    fps = saved.get("fps")
    names = {}
    for key in ("state_names", "action_names"):
        found = saved.get(key)
        names[key] = tuple(map(str, found)) if isinstance(found, list) else None
    return Origin(
        fps=float(fps) if type(fps) in (int, float) else None,
        robot_type=str(saved.get("robot_type", "")),
        **names,
    )


def _shapes(index: dict, where: str) -> dict[str, tuple[int, ...]]:
    """What every column must look like, by the index."""
    try:
        spec = index["spec"]
        steps = sum(row["length"] for row in index["episodes"])
        seen = steps + len(index["episodes"])
        return {
            "frames": (seen, len(spec["views"]), *spec["image_hw"], 3),
            "proprio": (seen, spec["proprio_dim"]),
            "actions": (steps, spec["action_dim"]),
            "executed": (steps, spec["action_dim"]),
        }
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: the environment's spec is incomplete ({error}): {_ADVICE}"
        ) from error


def _check_numbers(
    columns: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], where: str
) -> None:
    for name, array in columns.items():
        if array.shape != shapes[name] or array.dtype != np.float32:
            expected = f"float32 {shapes[name]}"
            raise ValueError(
                f"{where}: {name} is {array.dtype} {array.shape}, expected {expected}: {_ADVICE}"
            )
        if not np.isfinite(array).all():
            row = int((~np.isfinite(array)).any(1).argmax())
            raise ValueError(f"{where}: {name} holds NaN or infinity, in row {row}: {_ADVICE}")
