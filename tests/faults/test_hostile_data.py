"""Recordings with a named pipe in the place of a file: refused in one sentence, and nobody waits.
What else a stranger's recording may hold is in tests/data (links, paths, sizes, playlists).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.hdf5_files import robomimic
from tests.support.lerobot_made import episode, write_v21
from wamrl.data.demos import collect
from wamrl.data.episodes import save
from wamrl.data.lerobot.writer import write
from wamrl.data.sources import open_dataset
from wamrl.runs.demonstrations import load_data


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """One of each kind."""
    root = tmp_path_factory.mktemp("recordings")
    ours = collect(replace(tiny.CONFIG.demos("demo"), episodes=2, n_workers=0))
    for name in ("demos", "heldout"):
        save(ours, tiny.ENV.build().spec, root / "run" / name)
    others = [episode(6, n) for n in range(2)]
    write(root / "video", others, views=("top",), fps=10, video=True)
    write(root / "png", others, views=("top",), fps=10, video=False)
    write_v21(root / "v21", others, ("top",), movie=True)
    robomimic(root / "robomimic.hdf5")
    return root


def read(place: Path) -> None:
    """Every number and frame of it."""
    if place.name == "run":
        load_data(tiny.CONFIG, place)
    else:
        for episode_ in open_dataset(place).episodes():
            assert len(episode_.frames)


def files_of(place: Path) -> list[Path]:
    return [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]


@pytest.mark.timeout(60, method="signal")
@pytest.mark.parametrize("name", ["run", "video", "png", "v21", "robomimic.hdf5"])
def test_a_pipe_for_a_file_keeps_nobody_waiting(name, recordings, tmp_path):
    place = tmp_path / name
    if (recordings / name).is_dir():
        shutil.copytree(recordings / name, place)
    else:
        shutil.copy(recordings / name, place)
    read(place)
    needed = 0
    for file in files_of(place):
        kept = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        try:
            read(place)
        except ValueError as error:
            needed += 1
            assert "\n" not in str(error) and str(place) in str(error), error
        file.unlink()
        file.write_bytes(kept)
    assert needed >= min(3, len(files_of(place)))
