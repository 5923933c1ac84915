"""One HDF5 file per episode, as ALOHA stations and their simulations record them:
/observations/qpos (n, P), /observations/images/CAMERA, /action (n, A). Row r is what was seen
before action r (`record_episodes.py` of tonyzhaozh/act and of MarkFzp/act-plus-plus).

Pictures are uint8 (n, H, W, 3), or JPEGs: uint8 (n, L), each filled up with zeros to L bytes. They
come in the colours that any viewer of JPEGs shows, as openpi and lerobot convert them.

Example:
    recording = open_aloha(Path("aloha_transfer_cube"), views=("cam_high",), image_hw=(64, 64))
"""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.data.hdf5 import file as h5
from wamrl.data.recording import EpisodeInfo, Origin, Recording, unknown_note
from wamrl.runtime.images import resize

if TYPE_CHECKING:
    import h5py

OBSERVATIONS = "observations"
SUFFIXES = (".hdf5", ".h5")
STATE = ("qpos",)
ACTION = "action"
_OPEN = 16  # files at a time


def is_aloha(path: Path) -> bool:
    """A folder of HDF5 files, or a file with observations at its root; ValueError if broken."""
    if path.is_dir():
        return True
    with h5.sentences(path), h5.open_file(path) as file:
        return h5.member(file, OBSERVATIONS) is not None


def open_aloha(
    path: Path | str,
    *,
    views: Sequence[str] | None = None,
    state_keys: Sequence[str] = (),
    action_key: str = "",
    success: str = "auto",
    image_hw: tuple[int, int] | None = None,
) -> AlohaRecording:
    """Open a folder of episodes, or one. Numbers are read now, frames when somebody asks for them.

    views: cameras; None: all, by name. state_keys: keys of `observations`, joined; (): "qpos".
    action_key: "" is "action". success: a dataset at the root that reaches 1 in the episodes that
    succeeded; "auto": nobody knows. image_hw: (H, W) to resize every frame to; None: as stored,
    which must then be the same for all views. An episode of n rows has n - 1 actions: no frame is
    made up after the last.

    ValueError of one sentence if h5py is missing, or a file is broken, absurd, or points out of
    itself.
    """
    path = Path(path)
    episodes = episode_files(path)
    wanted = _Wanted(
        views=None if views is None else tuple(views),
        states=tuple(state_keys) or STATE,
        action=action_key or ACTION,
        success="" if success == "auto" else success,
    )
    return AlohaRecording(path, episodes, wanted, image_hw)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Which datasets of a file are read."""

    views: tuple[str, ...] | None
    states: tuple[str, ...]
    action: str
    success: str  # "": none tells


class AlohaRecording(Recording):
    """See `open_aloha`. At most 16 files are open."""

    def __init__(
        self, path: Path, episodes: list[Path], wanted: _Wanted, image_hw: tuple[int, int] | None
    ) -> None:
        self._paths = episodes
        self._open: OrderedDict[Path, h5py.File] = OrderedDict()
        first = self._file(episodes[0])
        with h5.sentences(episodes[0]):
            self.views = _cameras(first, wanted, episodes[0])
            self._cameras = self.views  # `views` may be given other names
            self.image_hw = image_hw or _common_size(first, self.views, path)
            self.origin = Origin(others=_others(first, wanted, self.views))
        states: list[np.ndarray] = []
        actions: list[np.ndarray] = []
        won: list[bool | None] = []
        for episode in episodes:
            with h5.sentences(episode):
                found = _numbers(self._file(episode), wanted, self.views)
            states.append(found[0])
            actions.append(found[1])
            won.append(found[2])
            _require_widths(found, (states[0], actions[0]), episode)
            if sum(map(np.size, states + actions)) > h5.MAX_NUMBERS:
                raise ValueError(f"{path} holds more numbers than fit in memory: split it")
        self.proprio = np.concatenate(states)
        self.actions = np.concatenate(actions)
        self.executed = self.actions
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        text = " ".join(re.findall(r"[^\W_]+", folder.name)) or "do the task"
        self.facts = [
            EpisodeInfo(
                length=len(labels), success=success, stages=int(bool(success)), seed=-1, text=text
            )
            for labels, success in zip(actions, won, strict=True)
        ]
        self.notes = unknown_note(self.facts)
        self._ends = np.cumsum([len(rows) for rows in states])

    def frames(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self._ends[-1]:
            raise IndexError(f"frame rows must be in [0, {self._ends[-1]})")
        wanted, back = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), len(self.views), *self.image_hw, 3), np.uint8)
        for number, row in enumerate(wanted.tolist()):
            episode = int(np.searchsorted(self._ends, row, side="right"))
            path = self._paths[episode]
            step = row - int(self._ends[episode - 1] if episode else 0)
            with h5.sentences(path):
                images = h5.subgroup(_observations(self._file(path)), "images")
                for view, camera in enumerate(self._cameras):
                    picture = _picture(images, camera, step, path)
                    found[number, view] = resize(picture[None], self.image_hw)[0]
        return found[back]

    def _file(self, path: Path) -> h5py.File:
        if path not in self._open:
            self._open[path] = h5.open_file(path)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def episode_files(folder: Path) -> list[Path]:
    """The HDF5 files of a folder, in the order of their numbers; never none. A file: itself."""
    if folder.is_file():
        return [folder]
    names = [path.name for path in folder.iterdir() if path.suffix in SUFFIXES]
    found = [folder / name for name in h5.by_number(names)]
    outside = [path for path in found if path.resolve().parent != folder.resolve()]
    if outside or not found:
        what = f"{outside[0]} is a link to elsewhere" if outside else f"{folder} holds no episodes"
        raise ValueError(f"{what}: give a folder of HDF5 files, one for each episode")
    if len(found) > h5.MAX_DEMOS:
        raise ValueError(f"{folder} holds {len(found)} files: split it")
    return found


def _observations(file: h5py.File) -> h5py.Group:
    if h5.member(file, OBSERVATIONS) is None:
        raise ValueError(
            f"{Path(file.filename).name} has no group {OBSERVATIONS}: a folder of HDF5 files is "
            "read as ALOHA's, one for each episode; of robomimic or LIBERO name the file"
        )
    return h5.subgroup(file, OBSERVATIONS)


def _cameras(file: h5py.File, wanted: _Wanted, path: Path) -> tuple[str, ...]:
    images = h5.member(_observations(file), "images")
    known = sorted(h5.names(images)) if images is not None else []
    views = wanted.views if wanted.views is not None else tuple(known)
    strangers = [view for view in views if view not in known]
    if strangers or not views or len(set(views)) < len(views):
        raise ValueError(
            f"{path} has no camera {(strangers or ['at all'])[0]!r} (or it was named twice): "
            f"choose from {', '.join(known) or 'nothing'}"
        )
    return views


def _numbers(
    file: h5py.File, wanted: _Wanted, views: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, bool | None]:
    """States float32 (n, P), actions float32 (n - 1, A), success; pictures are checked too."""
    observations = _observations(file)
    actions = h5.numbers(file, wanted.action)
    n = len(actions)
    where = Path(file.filename).name
    if n < 2 or actions.ndim != 2 or actions.dtype.kind != "f":
        raise ValueError(
            f"{where}: {wanted.action} is {actions.dtype} {actions.shape}: floats (n, A) with two "
            "rows or more are needed"
        )
    states = [h5.read_numbers(h5.numbers(observations, key, n)) for key in wanted.states]
    images = h5.subgroup(observations, "images")
    for view in views:
        h5.jpegs_or_pictures(images, view, n)
    success = None
    if wanted.success:
        success = bool(h5.read_numbers(h5.numbers(file, wanted.success)).max() >= 1)
    return np.concatenate(states, 1), h5.read_numbers(actions)[:-1], success


def _require_widths(found: tuple, first: tuple, path: Path) -> None:
    for what, one, two in zip(("states", "actions"), found, first, strict=False):
        if one.shape[1] != two.shape[1]:
            raise ValueError(
                f"{path} has {what} of {one.shape[1]} dimensions, the first episode "
                f"{two.shape[1]}: leave it out"
            )


def _picture(images: h5py.Group, camera: str, row: int, path: Path) -> np.ndarray:
    """uint8 (H, W, 3)."""
    stored = images[camera][row]
    if isinstance(stored, np.ndarray) and stored.ndim == 3:
        return stored
    from PIL import Image

    try:
        with Image.open(io.BytesIO(bytes(stored)), formats=("JPEG", "PNG")) as image:
            if max(image.size) > h5.MAX_SIDE:
                raise ValueError(f"it is {image.size[1]} x {image.size[0]} pixels")
            return np.array(image.convert("RGB"))
    except Exception as error:  # whatever Pillow makes of broken bytes
        raise ValueError(
            f"{path}: picture {row} of {camera} is not readable ({error}): leave that episode out"
        ) from None


def _common_size(file: h5py.File, views: tuple[str, ...], path: Path) -> tuple[int, int]:
    images = h5.subgroup(_observations(file), "images")
    sizes = set()
    for view in views:
        h5.jpegs_or_pictures(images, view)
        sizes.add(_picture(images, view, 0, path).shape[:2])
    if len(sizes) > 1:
        listed = ", ".join(f"{h} x {w}" for h, w in sorted(sizes))
        raise ValueError(
            f"{path}: its pictures differ in size ({listed}): give image_hw, or choose views"
        )
    return sizes.pop()


def _others(file: h5py.File, wanted: _Wanted, views: tuple[str, ...]) -> tuple[str, ...]:
    """Datasets that are not read."""
    used = {wanted.action, wanted.success}
    used |= {f"{OBSERVATIONS}/{key}" for key in wanted.states}
    used |= {f"{OBSERVATIONS}/images/{view}" for view in views}
    return tuple(key for key in h5.datasets(file) if key not in used)
