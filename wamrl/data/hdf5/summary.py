"""What lies in an HDF5 file, also where its columns have names that nobody expects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wamrl.data.hdf5 import file as h5
from wamrl.data.hdf5.aloha import episode_files, is_aloha

if TYPE_CHECKING:
    import h5py


def contents(path: Path) -> dict:
    """episodes, and features: dtype and shape of every dataset of the first episode.
    ValueError of one sentence where there are no episodes, or the file is broken.
    """
    if is_aloha(path):
        episodes = episode_files(path)
        with h5.sentences(episodes[0]), h5.open_file(episodes[0]) as file:
            return {"episodes": len(episodes), "features": _described(h5.datasets(file))}
    file = h5.open_file(path)
    try:
        with h5.sentences(path):
            data = h5.subgroup(file, "data")
            demos = h5.names(data, h5.MAX_DEMOS)
            if not demos:
                raise ValueError(f"{path} holds no episodes: give a file with at least one")
            first = h5.subgroup(data, demos[0])
            return {"episodes": len(demos), "features": _described(h5.datasets(first, depth=2))}
    finally:
        file.close()


def _described(found: dict[str, h5py.Dataset]) -> dict[str, dict]:
    return {
        key: {"dtype": str(part.dtype), "shape": list(part.shape)} for key, part in found.items()
    }
