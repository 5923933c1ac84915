"""Files that are not there yet: Git LFS leaves a text of three lines in place of each."""

from __future__ import annotations

from pathlib import Path

from wamrl.runtime.files import require_file

_POINTER = b"version https://git-lfs.github.com/spec/"


def advice(path: Path, otherwise: str) -> str:
    """What to do about a file that cannot be read: `otherwise`, unless it is a pointer."""
    try:
        require_file(path)
        with open(path, "rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
    except (OSError, ValueError):
        pointer = False
    if not pointer:
        return otherwise
    return "it is a Git LFS pointer, not the file: run `git lfs pull` where you cloned it"
