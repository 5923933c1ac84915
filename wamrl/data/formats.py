"""A recording of any format that wamrl reads, told apart by what lies there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

from wamrl.data import store
from wamrl.data.recording import InMemory, Recording

Kind = Literal["wamrl", "lerobot", "hdf5"]
_HDF5 = (".hdf5", ".h5")


def kind_of(path: Path | str) -> Kind:
    """What lies at `path`; ValueError if it is nothing we know."""
    path = Path(path)
    if path.suffix.lower() in _HDF5 and path.is_file():
        return "hdf5"
    if (path / "meta/info.json").is_file():
        return "lerobot"
    if _store(path) is not None:
        return "wamrl"
    raise ValueError(
        f"{path} is no recording that wamrl knows: name a folder with index.json (ours, or a run with demos), "
        "one with meta/info.json (LeRobot), or a .hdf5 file"
    )


def open_recording(path: Path | str, **options: object) -> Recording:
    """Open `path`, whatever it is. `options` go to `open_lerobot` and mean nothing elsewhere."""
    path, kind = Path(path), kind_of(path)
    if kind == "lerobot":
        from wamrl.data.lerobot import open_lerobot

        return open_lerobot(path, **options)
    if given := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"{given[0]} is for LeRobot datasets only: leave it out for {path}")
    if kind == "hdf5":
        try:
            reader = importlib.import_module("wamrl.data.hdf5")
        except ImportError as error:
            raise ValueError(f"cannot read HDF5 here ({error}): pip install 'wamrl[data]'") from None
        return reader.open_hdf5(path)
    folder = _store(path)
    return InMemory(store.load(folder), views=tuple(store.load_spec(folder)["views"]))


def _store(path: Path) -> Path | None:
    """The folder of episodes: `path` itself, or the demonstrations of a run."""
    return next((p for p in (path, path / "demos") if (p / "index.json").is_file()), None)
