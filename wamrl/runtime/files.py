"""Files and folders that are there as a whole or not at all, and that are what they were.

A draft lies beside its target, so that replacing is one rename on one file system. Drafts are named
at random: what a killed process leaves behind (`.NAME-xxxxxxxx.tmp`) is never taken for a result
and stands in nobody's way. `sweep` deletes it; `locked` says when nobody else can be at work.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
LOCK = ".lock"
_MAX_JSON_BYTES = 1 << 30
_DRAFT = re.compile(r"\.(?P<name>.+)-[0-9a-f]{8}\.(?P<kind>tmp|old)")
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_HERE = -100  # AT_FDCWD of fcntl.h


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
    with writing(path):
        try:
            yield draft
            _to_disk(draft)
            os.replace(draft, path)
            _to_disk(path.parent)
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError of the block (disk full, no permission) becomes a ValueError of one sentence, with
    the path and what room is left there.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror or error} ({_room(path)}); free space or choose "
            "another folder"
        ) from error


def _room(path: Path) -> str:
    """ "3.1 MB are free there"."""
    there = next((p for p in Path(path).absolute().parents if p.is_dir()), Path("/"))
    return f"{shutil.disk_usage(there).free / 1e6:.1f} MB are free there"


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
    with writing(path):
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
        with writing(path):
            yield Path(dist.broadcast_text(""))
        dist.barrier()
    dist.barrier()  # now it is there


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Yields whether this process got the folder, which is made; `holder` says who has it else.
    The kernel frees the lock when the process dies, however it dies. It holds on other machines,
    too, where they share a file system that knows locks (NFS does).

    The file stays: deleting it would let two processes lock two files of one name.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            said = f"no locks where {folder} lies: let one process at a time write there"
            warnings.warn(said, stacklevel=3)
        with contextlib.suppress(OSError):  # a full disk: then it stays unsaid
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield True


def holder(folder: Path) -> str:
    """Who has locked a folder, or had: "process 123 on host"."""
    said = (folder / LOCK).read_bytes()[:200].decode(errors="replace")
    return said if said.isprintable() and said else "another process"


def sweep(folder: Path) -> None:
    """Delete what killed processes have left in a folder and below, drafts and old versions; an old
    version whose successor never came is moved back.

    Only for whoever has locked the folder, or nobody else could be at work.
    """
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = _DRAFT.fullmatch(name)
            if found is None:
                continue
            left = Path(place, name)
            target = left.with_name(found["name"])
            if found["kind"] == "old" and not os.path.lexists(target):
                os.rename(left, target)
            elif left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        folders[:] = [name for name in folders if _DRAFT.fullmatch(name) is None]


def check_folder(
    path: Path, what: str, advice: str, *, beside: re.Pattern[str] | None = None
) -> None:
    """Compare all files with the manifest; ValueError of one sentence if any differs or is not
    named there.

    what: the kind of folder, such as "checkpoint"; advice: the user's way out. Both are for the
    sentence. beside: the names of what may lie there without being named.
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
    for file in sorted(path.iterdir()):
        stranger = beside is None or not beside.fullmatch(file.name)
        if stranger and file.name not in listed and file.name != MANIFEST:
            raise ValueError(f"{file} is not named by the manifest there: move it away")


def read_json(path: Path, what: str, advice: str) -> Any:
    """The content of a JSON file of a folder; ValueError of one sentence, as `check_folder`."""
    try:
        require_file(path)
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


def require_file(path: Path) -> None:
    """ValueError where something else is there: reading a named pipe would keep us waiting."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no file")


def sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal; ValueError where it is none."""
    require_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    digests = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")


def _replace_folder(draft: Path, path: Path) -> None:
    """The draft takes the place of what is there, which is deleted last.

    At every moment there is a whole folder at `path`, where the file system can exchange two names.
    Else the old one is moved aside first, and `sweep` moves it back if we are killed in between.
    """
    old = draft.with_suffix(".old")
    if not path.exists():
        os.rename(draft, path)
    elif _exchange(draft, path):
        old = draft
    else:
        os.rename(path, old)
        try:
            os.rename(draft, path)
        except OSError:
            os.rename(old, path)
            raise
    _to_disk(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names at once; False where system or file system cannot do it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(a), _HERE, os.fsencode(b), _EXCHANGE) == 0:
        return True
    fault = ctypes.get_errno()
    if fault in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(fault, os.strerror(fault))


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
