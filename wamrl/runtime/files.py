"""Files and folders that are there as a whole or not at all, and that are what they were.

A draft lies beside its target, so that replacing is one rename on one file system. Drafts are named
at random: what a killed process leaves behind (`.NAME-xxxxxxxx.tmp`) is never taken for a result
and stands in nobody's way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_MAX_JSON_BYTES = 1 << 30


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write the yielded draft, which is not there yet; when the block ends well it is `path`.

    A file that was there before is replaced at once, and left alone when the block raises. OSError
    (disk full, no permission) becomes a ValueError of one sentence.

    Example:
        with atomic_file(run / "curve.png") as draft:
            figure.savefig(draft, format="png")  # the draft's name ends in .tmp
    """
    path = Path(path)
    draft = _draft(path)
    with _one_sentence(path):
        try:
            yield draft
            _to_disk(draft)
            os.replace(draft, path)
            _to_disk(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text file in UTF-8, as `atomic_file`."""
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(path: Path, *, replaces: str = "") -> Iterator[Path]:
    """Fill the yielded, empty draft; when the block ends well it is `path`, else it vanishes.

    replaces: the name of a file that marks a folder of the same kind; such a folder is replaced.
    ValueError of one sentence if anything else is at `path`, and in place of an OSError.
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        if not replaces:
            raise ValueError(f"{path} exists already: delete it or name another folder")
        if not (path / replaces).is_file():
            raise ValueError(f"{path} exists and was not written by wamrl: choose another folder")
    draft = _draft(path)
    with _one_sentence(path):
        try:
            draft.mkdir(parents=True)
            yield draft
            for part in sorted(draft.rglob("*"), reverse=True):
                _to_disk(part)
            _to_disk(draft)
            _replace_folder(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def copy_folder(source: Path, path: Path) -> None:
    """A copy of the folder `source`, as `atomic_folder`; links that lead out of it are refused."""
    root = source.resolve()
    for part in source.rglob("*"):
        if not part.resolve().is_relative_to(root):
            raise ValueError(f"{part} leads out of the folder: copy it with `cp -rL` yourself")
    with atomic_folder(path) as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)


@contextlib.contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """`atomic_folder` with a manifest, for all ranks: each writes into the same draft.

    The first rank makes it, and no rank goes on before it has taken its place. A folder that was
    written so before is replaced.
    """
    from wamrl.runtime import dist  # torch, which `wamrl list` does without

    if dist.is_main():
        with atomic_folder(path, replaces=MANIFEST) as draft:
            dist.broadcast_text(str(draft.absolute()))
            yield draft
            dist.barrier()  # all have written
            _write_manifest(draft)
    else:
        yield Path(dist.broadcast_text(""))
        dist.barrier()
    dist.barrier()  # now it is there


def check_folder(path: Path, what: str, advice: str) -> None:
    """Compare all files with the manifest; ValueError of one sentence if any differs.

    what: the kind of folder, such as "checkpoint"; advice: the user's way out. Both are for the
    sentence.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"there is no {what} at {path}: {advice}")
    listed = read_json(path / MANIFEST, what, advice)
    plain = isinstance(listed, dict) and all(
        isinstance(digest, str) and Path(name).name == name for name, digest in listed.items()
    )
    if not plain:
        raise ValueError(f"{path / MANIFEST} is not the manifest of a {what}: {advice}")
    for name, digest in listed.items():
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing: {advice}")
        if sha256(path / name) != digest:
            raise ValueError(
                f"{path / name} is corrupt (its sha256 is not the recorded one): {advice}"
            )


def read_json(path: Path, what: str, advice: str) -> Any:
    """The content of a JSON file of a folder; ValueError of one sentence, as `check_folder`."""
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

    saved, mine, where: see `config_differences`.
    """
    for name, there, here in config_differences(saved, mine, where):
        return f"{name} is {there} there and {here} here"
    return None


def config_differences(
    saved: object, mine: object, where: str
) -> Iterator[tuple[str, object, object]]:
    """Every place where two resolved configurations differ: its name, what is there and here.

    saved, mine: as `log.resolved` gives them. where: what the outermost one is called.
    Classes ("module:name") are compared by their names: modules move.
    """
    if not isinstance(saved, dict) or not isinstance(mine, dict):
        if saved != mine:
            yield where, saved, mine
        return
    for key in sorted(saved.keys() | mine.keys()):
        there = saved.get(key)
        here = mine.get(key)
        if key == "class" and _class_name(there) == _class_name(here):
            continue
        yield from config_differences(there, here, f"{where}.{key}")


def _class_name(kind: object) -> str:
    """ "wamrl.models.wam_config:WAMConfig" -> "WAMConfig"."""
    return str(kind).rpartition(":")[2]


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    digests = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error


def _replace_folder(draft: Path, path: Path) -> None:
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
