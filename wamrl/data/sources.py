"""Which kind of dataset lies there? One function opens them all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wamrl.data.episodes import open_store
from wamrl.data.recording import Recording

Kind = Literal["wamrl", "lerobot", "hdf5"]
KINDS = (
    "a folder of episodes (index.json), a LeRobotDataset (meta/info.json), an HDF5 file of "
    "robomimic or LIBERO"
)


def kind(path: Path) -> Kind | None:
    """By what the place looks like; None if it is no dataset."""
    if (path / "index.json").is_file():
        return "wamrl"
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    return "hdf5" if path.is_file() and path.suffix in (".hdf5", ".h5") else None


def open_dataset(
    path: Path, *, views: tuple[str, ...] | None = None, image_hw: tuple[int, int] | None = None
) -> Recording:
    """Any dataset. views: cameras in this order, None: all;
    image_hw: resize to that (our own folders: as they are).

    ValueError of one sentence if there is none, or it is broken.
    """
    match kind(path):
        case "wamrl":
            return open_store(path)
        case "lerobot":
            from wamrl.data.lerobot import open_lerobot

            return open_lerobot(path, views=views, image_hw=image_hw)
        case "hdf5":
            from wamrl.data.hdf5.reader import open_hdf5

            return open_hdf5(path, views=views, image_hw=image_hw)
    raise ValueError(f"{path} is no dataset: give {KINDS}")
