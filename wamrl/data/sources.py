"""Which kind of dataset lies there? One function opens them all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wamrl.data.episodes import open_store
from wamrl.data.keys import DataKeys
from wamrl.data.recording import Recording

Kind = Literal["wamrl", "lerobot", "hdf5"]
KINDS = (
    "a folder of episodes (index.json), a LeRobotDataset (meta/info.json), an HDF5 file of "
    "robomimic or LIBERO, a folder of ALOHA's (one for each episode)"
)


def kind(path: Path) -> Kind | None:
    """By what the place looks like; None if it is no dataset."""
    if (path / "index.json").is_file():
        return "wamrl"
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    suffixes = (".hdf5", ".h5")
    if path.is_dir():  # as ALOHA records them, a file for each episode
        return "hdf5" if any(child.suffix in suffixes for child in path.iterdir()) else None
    return "hdf5" if path.is_file() and path.suffix in suffixes else None


def open_dataset(
    path: Path,
    *,
    views: tuple[str, ...] | None = None,
    image_hw: tuple[int, int] | None = None,
    keys: DataKeys | None = None,
) -> Recording:
    """Any dataset. views: cameras in this order, by their new names, where `keys` names none; None:
    all. image_hw: resize to that (our own folders: as they are). keys: what its columns are called.

    ValueError of one sentence if there is none, or it is broken.
    """
    keys = keys or DataKeys()
    found = kind(path)
    if found is None:
        raise ValueError(f"{path} is no dataset: give {KINDS}")
    if found == "wamrl":
        if keys != DataKeys():
            raise ValueError(
                f"{path} is our own: its columns have one name each, leave --views, --rename and "
                "the keys out"
            )
        return open_store(path)
    options = keys.options(views)
    recording = _OPENERS[found](path, options | {"image_hw": image_hw})
    strict = "views" not in options
    recording.views = _new_names(recording.views, keys.renamed, path, strict)
    return recording


def _open_lerobot(path: Path, options: dict) -> Recording:
    from wamrl.data.lerobot import open_lerobot

    return open_lerobot(path, **options)


def _open_hdf5(path: Path, options: dict) -> Recording:
    from wamrl.data.hdf5.aloha import is_aloha, open_aloha
    from wamrl.data.hdf5.reader import open_hdf5

    return open_aloha(path, **options) if is_aloha(path) else open_hdf5(path, **options)


_OPENERS = {"lerobot": _open_lerobot, "hdf5": _open_hdf5}


def _new_names(
    views: tuple[str, ...], renamed: dict[str, str], path: Path, strict: bool
) -> tuple[str, ...]:
    """The cameras of a recording as `--rename` calls them; strict: all of those must be there."""
    new = {old: name for name, old in renamed.items()}
    strangers = [old for old in new if old not in views]
    if strict and strangers:
        raise ValueError(
            f"--rename: {path} has no camera {strangers[0]!r}: choose from {', '.join(views)}"
        )
    found = tuple(new.get(view, view) for view in views)
    if len(set(found)) < len(found):
        raise ValueError(f"--rename gives two cameras of {path} one name: {', '.join(found)}")
    return found
