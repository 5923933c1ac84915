"""Folders that are either whole or not there, and files that are what they were."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wamrl.runtime import dist

MANIFEST = "manifest.json"
_MAX_JSON_BYTES = 1 << 30


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill the yielded folder;
    it takes the place of `path` when the block ends well, and vanishes when it does not.

    A sha256 manifest of all files is added.
    OSError (disk full, no permission) becomes a ValueError of one sentence.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file():
        raise ValueError(f"{path} exists and was not written by wamrl: choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent))
        try:
            yield draft
            _write_manifest(draft)
            draft.chmod(0o755)
            _replace(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error


@contextlib.contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """`atomic_folder` for all ranks: the first one makes it,
    the others write into it too, and none is ahead.
    """
    if dist.is_main():
        with atomic_folder(path) as draft:
            dist.broadcast_text(str(draft.absolute()))
            yield draft
            dist.barrier()
    else:
        yield Path(dist.broadcast_text(""))
        dist.barrier()
    dist.barrier()  # now it is there


def check_folder(path: Path, what: str, advice: str) -> None:
    """Compare all files with the manifest;
    ValueError of one sentence, `what` it should be and the user's way out.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no {what} at {path}: {advice}")
    listed = read_json(path / MANIFEST, what, advice)
    if not isinstance(listed, dict) or not all(
        isinstance(v, str) and Path(k).name == k for k, v in listed.items()
    ):
        raise ValueError(f"{path / MANIFEST} is not the manifest of a {what}: {advice}")
    for name, digest in listed.items():
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing: {advice}")
        if sha256(path / name) != digest:
            raise ValueError(
                f"{path / name} is corrupt (its sha256 is not the recorded one): {advice}"
            )


def read_json(path: Path, what: str, advice: str):
    """The content of a JSON file, or ValueError of one sentence."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("it is absurdly large")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent} is not a {what} ({path.name} is missing): {advice}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not readable as part of a {what} ({error}): {advice}"
        ) from error


def config_difference(saved: object, mine: object, where: str) -> str | None:
    """The first place where two resolved configurations differ, in words; None if there is none.

    saved, mine: as `log.resolved` gives them. where: what the outermost one is called.
    Classes ("module:name") are compared by their names: modules move.
    """
    if not isinstance(saved, dict) or not isinstance(mine, dict):
        return None if saved == mine else f"{where} is {saved} there and {mine} here"
    for key in sorted(saved.keys() | mine.keys()):
        there = saved.get(key)
        here = mine.get(key)
        if key == "class" and _class_name(there) == _class_name(here):
            continue
        fault = config_difference(there, here, f"{where}.{key}")
        if fault is not None:
            return fault
    return None


def _class_name(kind: object) -> str:
    """ "wamrl.models.wam_config:WAMConfig" -> "WAMConfig"."""
    return str(kind).rpartition(":")[2]


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    digests = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    for file in folder.iterdir():
        _to_disk(file)
    _to_disk(folder)


def _replace(draft: Path, path: Path) -> None:
    """Rename; a folder in the way is moved aside first, and deleted last."""
    old = draft.with_suffix(".old")
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(draft, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    _to_disk(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
