"""What lies in an HDF5 file, also where its columns have names that nobody expects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wamrl.data.hdf5 import file as h5

if TYPE_CHECKING:
    import h5py


def contents(path: Path) -> dict:
    """episodes, and features: dtype and shape of every dataset of the first episode.
    ValueError of one sentence where there are no episodes, or the file is broken.
    """
    file = h5.open_file(path)
    try:
        with h5.sentences(path):
            data = h5.subgroup(file, "data")
            demos = h5.names(data, h5.MAX_DEMOS)
            if not demos:
                raise ValueError(f"{path} holds no episodes: give a file with at least one")
            return {"episodes": len(demos), "features": _datasets(h5.subgroup(data, demos[0]))}
    finally:
        file.close()


def _datasets(demo: h5py.Group, prefix: str = "") -> dict[str, dict]:
    """By their paths in the episode; links are not followed."""
    import h5py

    found = {}
    for key in h5.names(demo):
        part = h5.member(demo, key)
        if isinstance(part, h5py.Dataset):
            found[prefix + key] = {"dtype": str(part.dtype), "shape": list(part.shape)}
        elif not prefix:  # obs and next_obs, no deeper
            found |= _datasets(part, f"{key}/")
    return found
