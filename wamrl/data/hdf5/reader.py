"""Demonstrations in the HDF5 files of robomimic and LIBERO.
Needs `pip install -e '.[data]'`. More: docs/data-hdf5.md.

Example:
    recording = open_hdf5(Path("lift/image_v15.hdf5"), views=("front", "wrist"), image_hw=(64, 64))
    episode = recording.episode(0)  # frames uint8 (S+1, V, 64, 64, 3)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl.data.hdf5 import file as h5
from wamrl.data.hdf5.layouts import Layout, find_layout, pick_cameras, state
from wamrl.data.recording import EpisodeInfo, Origin, Recording, unknown_note
from wamrl.runtime.images import resize

if TYPE_CHECKING:
    import h5py

ACTIONS = "actions"
_RUN = 64  # frames that are read from disk at once


def open_hdf5(
    path: Path | str,
    *,
    views: Sequence[str] | None = None,
    state_keys: Sequence[str] = (),
    action_key: str = "",
    success: str = "auto",
    image_hw: tuple[int, int] | None = None,
    mask: str = "",
    text: str = "",
) -> Hdf5Recording:
    """Open a file of demonstrations; numbers are read now, frames when somebody asks for them.

    views: cameras by key ("agentview_image"), without its ending, or "front" and "wrist"; None:
    all, by name. state_keys: keys of `obs`, joined in this order into the proprioception. ():
    LIBERO hand position (3), axis-angle (3), fingers (2); robomimic hand position (3), quaternion
    (w, x, y, z) with x + y >= 0 (4), fingers (2). image_hw: (H, W) to resize every frame to; None:
    as stored, which must then be the same for all views. mask: only the episodes of that group of
    `mask/` ("train", "valid"; robomimic). text: the instruction, if the file's own one (LIBERO), or
    the words of its task's name (robomimic), is not the wanted one.

    Pictures come upright as our environments give them; LIBERO's with left and right exchanged, as
    OpenVLA and openpi feed them. No frame is made up: an episode has n actions and n + 1 frames
    only where `next_obs` holds the last one, else n - 1 actions. action_key: "" is "actions".
    success: a dataset of the episode, which reaches 1 if it succeeded; "auto": rewards, else dones,
    else nobody knows (None, and `notes` says so).

    ValueError of one sentence if h5py is missing, or the file is absent,
    broken, absurd, or points out of itself.
    """
    path = Path(path)
    file = h5.open_file(path)
    try:
        with h5.sentences(path):
            columns = Columns(
                states=tuple(state_keys), action=action_key or ACTIONS, success=success
            )
            return Hdf5Recording(path, file, views, columns, image_hw, mask, text)
    except ValueError:
        file.close()
        raise


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which datasets of an episode are read."""

    states: tuple[str, ...]  # of obs; (): as the layout says
    action: str
    success: str  # or "auto"


@dataclass(frozen=True, kw_only=True)
class _Demo:
    """Checked, not yet read."""

    actions: h5py.Dataset  # (n, A)
    states: list[h5py.Dataset]
    images: list[h5py.Dataset]  # one per view, (n, H, W, 3)
    # of next_obs; empty if the frame after the last action is not there
    last_states: list[h5py.Dataset]

    last_images: list[h5py.Dataset]
    success: bool | None

    @property
    def length(self) -> int:
        return len(self.actions) if self.last_images else len(self.actions) - 1


class Hdf5Recording(Recording):
    """See `open_hdf5`. The file stays open until `close`, or until the recording is forgotten."""

    def __init__(
        self,
        path: Path,
        file: h5py.File,
        views: Sequence[str] | None,
        columns: Columns,
        image_hw: tuple[int, int] | None,
        mask: str,
        text: str,
    ) -> None:
        self._path = path
        self._file = file
        data = h5.subgroup(file, "data")
        chosen = _demo_names(file, data, mask, path)
        first = h5.subgroup(data, chosen[0])
        self._layout = find_layout(data, first, path)
        keys = h5.names(h5.subgroup(first, "obs"))
        cameras = pick_cameras(self._layout, keys, None if views is None else tuple(views), path)
        states = columns.states or self._layout.state_keys
        columns = replace(columns, states=states)
        self._demos = [
            _check_demo(h5.subgroup(data, name), columns, list(cameras.values())) for name in chosen
        ]
        self.views = tuple(cameras)
        self.image_hw = image_hw or _common_size(self._demos, path)
        self._read_numbers(states)
        self.facts = [
            EpisodeInfo(
                length=d.length,
                success=d.success,
                stages=int(bool(d.success)),
                seed=-1,
                text=text or self._layout.text,
            )
            for d in self._demos
        ]
        self.notes = unknown_note(self.facts)
        self.origin = Origin(others=_others(first, {*states, *cameras.values(), columns.action}))
        self._ends = np.cumsum([fact.length + 1 for fact in self.facts])

    def _read_numbers(self, keys: tuple[str, ...]) -> None:
        wanted = [d for demo in self._demos for d in (demo.actions, *demo.states)]
        if (total := sum(dataset.size for dataset in wanted)) > h5.MAX_NUMBERS:
            raise ValueError(
                f"{self._path} holds {total} numbers, more than fit in memory: split it"
            )
        widths = {tuple(d.shape[1:] for d in (demo.actions, *demo.states)) for demo in self._demos}
        if len(widths) > 1 or not keys:
            raise ValueError(
                f"{self._path}: its episodes have states or actions of different widths, or none "
                "at all"
            )
        rows = [self._states(demo, keys) for demo in self._demos]
        labels = [_labels(demo, self._layout) for demo in self._demos]
        self.proprio = np.concatenate(rows)
        self.actions = np.concatenate(labels)
        self.executed = self.actions

    def _states(self, demo: _Demo, keys: tuple[str, ...]) -> np.ndarray:
        """float32 (S+1, P)."""
        parts = []
        for number, key in enumerate(keys):
            values = h5.read_numbers(demo.states[number])
            if demo.last_states:
                values = np.concatenate([values, h5.read_numbers(demo.last_states[number])[-1:]])
            parts.append(state(key, values, self._layout.panda))
        return np.concatenate(parts, 1)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self._ends[-1]:
            raise IndexError(f"frame rows must be in [0, {self._ends[-1]})")
        wanted, back = np.unique(rows, return_inverse=True)
        found = np.empty((len(wanted), len(self.views), *self.image_hw, 3), np.uint8)
        episodes = np.searchsorted(self._ends, wanted, side="right")
        breaks = (np.diff(wanted, prepend=-2) != 1) | (np.diff(episodes, prepend=-1) != 0)
        # of runs that are read at once
        firsts = np.flatnonzero(breaks | (np.arange(len(wanted)) % _RUN == 0))
        stops = np.append(firsts, len(wanted))[1:]
        with h5.sentences(self._path):
            for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
                demo = self._demos[episodes[first]]
                step = int(wanted[first] - (self._ends[episodes[first]] - demo.length - 1))
                for view in range(len(self.views)):
                    found[first:stop, view] = self._pictures(demo, view, step, step + stop - first)
        return found if len(found) == len(rows) and np.array_equal(wanted, rows) else found[back]

    def _pictures(self, demo: _Demo, view: int, step: int, stop: int) -> np.ndarray:
        """Frames [step, stop) of an episode, uint8 (n, H, W, 3), upright and resized."""
        pictures = demo.images[view][step:stop]
        if stop > len(demo.actions):  # the frame after the last action
            pictures = np.concatenate([pictures, demo.last_images[view][-1:]])
        rows, columns = self._layout.flip
        pictures = pictures[:, :: -1 if rows else 1, :: -1 if columns else 1]
        return resize(np.ascontiguousarray(pictures), self.image_hw)

    def close(self) -> None:
        self._file.close()


def _demo_names(file: h5py.File, data: h5py.Group, mask: str, path: Path) -> list[str]:
    """The episodes to read, in the order of their numbers; never none."""
    found = set(h5.names(data, h5.MAX_DEMOS))
    if mask:
        asked = h5.read_names(h5.column(h5.subgroup(file, "mask"), mask))
        if strangers := sorted(set(asked) - found):
            raise ValueError(
                f"{path}: mask/{mask} names episodes that are not there, such as {strangers[0]!r}"
            )
        found = set(asked)
    if not found:
        raise ValueError(
            f"{path} holds no episodes: give a file of robomimic or LIBERO with at least one"
        )
    return h5.by_number(found)


def _others(demo: h5py.Group, used: set[str]) -> tuple[str, ...]:
    """Datasets of an episode that are not read."""
    keys = [f"obs/{key}" for key in h5.names(h5.subgroup(demo, "obs")) if key not in used]
    known = {*used, "obs", "next_obs", "rewards", "dones"}
    return tuple(keys + [key for key in h5.names(demo) if key not in known])


def _success(demo: h5py.Group, key: str, rows: int) -> bool | None:
    """Does the column reach 1? None where there is none to tell."""
    if key == "auto":
        key = next((k for k in ("rewards", "dones") if h5.member(demo, k) is not None), "")
    return bool(h5.read_numbers(h5.numbers(demo, key, rows)).max() >= 1) if key else None


def _check_demo(demo: h5py.Group, columns: Columns, images: list[str]) -> _Demo:
    """All that will be read of one episode;
    ValueError of one sentence at the first thing that does not fit.
    """
    states = columns.states
    actions = h5.numbers(demo, columns.action)
    obs = h5.subgroup(demo, "obs")
    n = len(actions)
    where = f"{demo.name.lstrip('/')}"
    if (told := h5.attribute(demo, "num_samples", n)) != n:
        raise ValueError(
            f"{where} says num_samples={told}, but has {n} actions: write the file again"
        )
    if actions.ndim != 2 or actions.dtype.kind != "f":
        raise ValueError(
            f"{where}/{columns.action} is {actions.dtype} {actions.shape}: floats (n, A) are needed"
        )
    after = h5.subgroup(demo, "next_obs") if h5.member(demo, "next_obs") is not None else None
    if after is not None and not all(
        h5.member(after, key) is not None for key in (*states, *images)
    ):
        after = None
    if n < 2 and after is None:
        raise ValueError(
            f"{where} has one row only: without next_obs no action has a frame after it, leave it "
            "out"
        )
    found = _Demo(
        actions=actions,
        states=[h5.numbers(obs, key, n) for key in states],
        images=[h5.pictures(obs, key, n) for key in images],
        last_states=[] if after is None else [h5.numbers(after, key, n) for key in states],
        last_images=[] if after is None else [h5.pictures(after, key, n) for key in images],
        success=_success(demo, columns.success, n),
    )
    pairs = zip(found.states + found.images, found.last_states + found.last_images, strict=False)
    if any(one.shape != two.shape for one, two in pairs):
        raise ValueError(f"{where}: obs and next_obs differ in shape: write the file again")
    return found


def _labels(demo: _Demo, layout: Layout) -> np.ndarray:
    """float32 (S, A): the action between one frame and the next."""
    actions = h5.read_numbers(demo.actions)
    return actions if demo.last_images else actions[1:] if layout.late else actions[:-1]


def _common_size(demos: list[_Demo], path: Path) -> tuple[int, int]:
    sizes = {image.shape[1:3] for demo in demos for image in demo.images}
    if len(sizes) > 1:
        listed = ", ".join(f"{h} x {w}" for h, w in sorted(sizes))
        raise ValueError(
            f"{path}: its pictures differ in size ({listed}): give image_hw, or choose views"
        )
    return sizes.pop()
