"""A LeRobotDataset v3.0 or v2.1 as a `Recording`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from wamrl.data.lerobot import images, video
from wamrl.data.lerobot.columns import read_columns
from wamrl.data.lerobot.episodes import LAST_FRAME, missing_numbers, read_spans, read_tasks
from wamrl.data.lerobot.files import Films
from wamrl.data.lerobot.schema import WRONG, Feature, Info, read_info
from wamrl.data.recording import EpisodeInfo, Origin, Recording, unknown_note
from wamrl.runtime.images import resize

STATE = "observation.state"
ACTION = "action"
EXECUTED = "complementary_info.executed"
NEXT_SUCCESS = "next.success"
# columns that a LeRobotDataset has for itself
_OWN = {"timestamp", "frame_index", "episode_index", "index", "task_index", "next.done"}


def open_lerobot(
    path: Path | str,
    *,
    views: Sequence[str] | None = None,
    image_hw: tuple[int, int] | None = None,
    state_keys: Sequence[str] = (),
    action_key: str = "",
    success: str | bool = "auto",
) -> LeRobotRecording:
    """Open a dataset folder; numbers are read now, frames when somebody asks for them.

    views: cameras, by key (observation.images.top) or short name (top); None: all, in the order of
    info.json. image_hw: (H, W) to resize every frame to (area); None: as recorded, which must then
    be the same for all views. state_keys: numeric features, joined in this order into the
    proprioception, raw units; (): observation.state. action_key: ""  is "action".
    success: "auto": our own column, else whether next.success is ever true, else unknown (None, and
    `notes` says so); a feature's key: whether it ever reaches 1; a bool: that.

    LeRobot has one observation per action. A dataset that `write` did not write lacks the frame
    after the last action, so an episode of n rows becomes n frames and n - 1 actions: the last
    action is dropped, no frame is made up.

    Nothing is executed or unpickled. ValueError of one sentence if something is missing, broken,
    absurd, or lies outside of the folder.
    """
    info = read_info(Path(path))
    cameras = pick_cameras(info, views)
    if image_hw is None and len({c.image_hw for c in cameras}) > 1:
        sizes = ", ".join(f"{c.key} {c.image_hw[0]} x {c.image_hw[1]}" for c in cameras)
        raise ValueError(
            f"{path}: the cameras differ in size ({sizes}): give image_hw, or choose views"
        )
    states = tuple(state_keys) or (STATE,)
    return LeRobotRecording(info, cameras, image_hw, states, action_key or ACTION, success)


def short_name(key: str) -> str:
    """A feature without the prefixes of observations: the name that users give a camera."""
    return key.removeprefix("observation.images.").removeprefix("observation.")


def pick_cameras(info: Info, views: Sequence[str] | None) -> list[Feature]:
    """The features of the wanted views; never none."""
    known = {c.key: c for c in info.cameras}
    found = []
    for name in known if views is None else views:
        key = next((k for k in known if name in (k, short_name(k))), None)
        if key is None:
            unfit = (
                f for f in info.features.values() if f.fault and name in (f.key, short_name(f.key))
            )
            why = next((f" ({feature.fault})" for feature in unfit), "")
            raise ValueError(
                f"{info.root} has no camera {name!r}{why}: choose from "
                f"{', '.join(known) or '(there is none)'}"
            )
        found.append(known[key])
    if not found:
        faults = [f"{f.key}: {f.fault}" for f in info.features.values() if f.fault]
        raise ValueError(
            f"{info.root} has no camera that can be used{' (' * bool(faults)}{'; '.join(faults)}"
            f"{')' * bool(faults)}: a world model needs frames, choose a dataset with images"
        )
    if any(c.dtype == "video" for c in found) and not info.video_path:
        raise ValueError(f"{info.root}: info.json has videos but no video_path: {WRONG}")
    return found


class LeRobotRecording(Recording):
    """See `open_lerobot`. Attributes besides those of a `Recording`:
    `info`, `fps`.
    """

    def __init__(
        self,
        info: Info,
        cameras: list[Feature],
        image_hw: tuple[int, int] | None,
        state_keys: tuple[str, ...],
        action_key: str,
        success: str | bool,
    ) -> None:
        self.info = info
        self.fps = info.fps
        self.cameras = cameras
        self.views = tuple(short_name(c.key) for c in cameras)
        self.image_hw = image_hw or cameras[0].image_hw
        self.notes: list[str] = []
        _require(info, (*state_keys, action_key))
        self._spans = read_spans(info, [c.key for c in cameras if c.dtype == "video"])
        self._whole = self._spans[0].extra is not None  # the last frame and state are there
        self._lengths = np.array([s.rows for s in self._spans])
        if not self._whole and self._lengths.min() < 2:
            raise ValueError(
                f"{info.root}: episode {self._spans[self._lengths.argmin()].number} has one row "
                "only: remove it"
            )
        executed = EXECUTED if action_key == ACTION and EXECUTED in info.features else action_key
        flag = self._flag(success)
        keys = [*state_keys, action_key, executed, *([flag] if flag else [])]
        columns, self._file_starts = read_columns(info, self._spans, keys)
        self._time = columns["timestamp"][:, 0]
        # first row of every episode in the columns
        self._rows = np.cumsum([0, *self._lengths[:-1]])
        # and in `proprio` and the frames
        self._starts = np.cumsum([0, *(self._lengths + self._whole)])
        self._fill([columns[key] for key in state_keys], columns[action_key], columns[executed])
        self.facts = self._facts(columns, success, flag)
        self.notes += unknown_note(self.facts)
        if missing := missing_numbers(self._spans):
            shown = ", ".join(map(str, missing[:10])) + ", ..." * (len(missing) > 10)
            self.notes.append(f"there are no episodes {shown}: the others keep their numbers")
        used = {*state_keys, action_key, executed, flag, NEXT_SUCCESS, *(c.key for c in cameras)}
        self.origin = _origin(info, state_keys, action_key, used | _OWN)
        self._videos = video.Videos()
        self._cells = images.Cells()

    def films(self) -> list[Films]:
        """Its videos, camera by camera, if they can be taken as they are: all cameras have some,
        none is resized, the episodes of a file follow each other, and row r is shown at r / fps.
        Else none.
        """
        row = np.concatenate([np.arange(rows) for rows in self._lengths])
        in_time = np.abs(self._time - row / self.info.fps).max() < 0.25 / self.info.fps
        as_stored = all(c.dtype == "video" and c.image_hw == self.image_hw for c in self.cameras)
        if not in_time or not as_stored:
            return []
        found = []
        for camera in self.cameras:
            places = [span.videos[camera.key] for span in self._spans]
            changes = 1 + sum(a[0] != b[0] for a, b in pairwise(places))
            if changes > len({path for path, _ in places}):  # a file comes twice
                return []
            found.append(Films(about=camera.info, places=places))
        return found

    def frames(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self.proprio):
            raise IndexError(f"rows must lie in [0, {len(self.proprio)})")
        out = np.empty((len(rows), len(self.cameras), *self.image_hw, 3), dtype=np.uint8)
        wanted, back = np.unique(rows, return_inverse=True)
        episodes = np.searchsorted(self._starts, wanted, side="right") - 1
        takers = np.split(
            np.argsort(back, kind="stable"),
            np.cumsum(np.bincount(back, minlength=len(wanted)))[:-1],
        )
        for view, camera in enumerate(self.cameras):
            read = self._from_video if camera.dtype == "video" else self._from_cells
            for number, rgb in read(camera, episodes, wanted - self._starts[episodes]):
                out[takers[number], view] = resize(rgb, self.image_hw)
        return out

    def _from_video(self, camera: Feature, episodes: np.ndarray, steps: np.ndarray):
        """(position, frame) of the wanted rows, file by file and forwards in each."""
        files: dict[Path, list[tuple[float, int]]] = defaultdict(list)
        for number, (episode, step) in enumerate(
            zip(episodes.tolist(), steps.tolist(), strict=True)
        ):
            span = self._spans[episode]
            path, begin = span.videos[camera.key]
            row = int(self._rows[episode]) + step
            second = float(self._time[row]) if step < span.rows else span.rows / self.info.fps
            files[path].append((begin + second, number))
        for path, wanted in files.items():
            wanted.sort()
            found = self._videos.frames(
                path, np.array([w[0] for w in wanted]), camera.image_hw, self.info.fps
            )
            yield from zip([w[1] for w in wanted], found, strict=True)

    def _from_cells(self, camera: Feature, episodes: np.ndarray, steps: np.ndarray):
        for number, (episode, step) in enumerate(
            zip(episodes.tolist(), steps.tolist(), strict=True)
        ):
            span = self._spans[episode]
            if step < span.rows:
                path = span.data
                row = int(self._rows[episode] - self._file_starts[span.data]) + step
                cell = self._cells.cell(path, camera.key, row)
            else:
                path, group, row = span.meta
                cell = self._cells.in_group(path, LAST_FRAME + camera.key, group, row)
            yield number, images.decode(cell, camera.image_hw, str(path))

    def _flag(self, success: str | bool) -> str | None:
        """The feature that tells success, if it is to be read."""
        if isinstance(success, bool) or (success == "auto" and self._whole):
            return None
        if success == "auto":
            return NEXT_SUCCESS if NEXT_SUCCESS in self.info.features else None
        return self.info.feature(success).key

    def _fill(self, states: list[np.ndarray], actions: np.ndarray, executed: np.ndarray) -> None:
        """proprio, actions and executed out of the columns."""
        state = np.concatenate(states, axis=1)
        if not self._whole:
            kept = np.ones(len(state), dtype=bool)
            kept[self._rows + self._lengths - 1] = False
            self.proprio = state
            self.actions = actions[kept]
            self.executed = executed[kept]
            return
        last = [span.extra.last_state for span in self._spans]
        if any(len(row) != state.shape[1] for row in last):
            raise ValueError(
                f"{self.info.root}: wamrl/last_state has another length than the state "
                f"({state.shape[1]}): "
                "read observation.state alone"
            )
        self.proprio = np.insert(state, self._rows + self._lengths, np.stack(last), axis=0)
        self.actions = actions
        self.executed = executed

    def _facts(
        self, columns: dict[str, np.ndarray], success: str | bool, flag: str | None
    ) -> list[EpisodeInfo]:
        tasks = read_tasks(self.info)
        index = columns["task_index"][:, 0]
        first = index[self._rows]
        if unknown := set(first.tolist()) - set(tasks):
            raise ValueError(f"{self.info.root}: task {min(unknown)} is not in meta/tasks: {WRONG}")
        if (index != np.repeat(first, self._lengths)).any():
            self.notes.append("the task changes within an episode: the first one counts")
        won = np.logical_or.reduceat((columns[flag] >= 1).any(1), self._rows) if flag else None
        facts = []
        for number, span in enumerate(self._spans):
            extra = span.extra
            if won is not None:
                good = bool(won[number])
            elif isinstance(success, bool):
                good = success
            else:
                good = extra.success if extra else None
            facts.append(
                EpisodeInfo(
                    length=span.rows if extra else span.rows - 1,
                    success=good,
                    text=tasks[int(first[number])],
                    stages=extra.stages if extra else int(bool(good)),
                    seed=extra.seed if extra else -1,
                )
            )
        return facts


def _require(info: Info, keys: Sequence[str]) -> None:
    """ValueError where a state or an action is called otherwise."""
    absent = [key for key in keys if key not in info.features]
    if absent:
        raise ValueError(
            f"{info.root} has no feature {absent[0]!r}: choose --state-keys and --action-key from "
            f"{', '.join(key for key, feature in info.features.items() if _is_number(feature))}"
        )


def _is_number(feature: Feature) -> bool:
    return feature.dtype not in ("image", "video", "string") and not feature.fault


def _origin(
    info: Info, state_keys: Sequence[str], action_key: str, used: set[str | None]
) -> Origin:
    """What info.json says beside the columns that are read."""
    parts = [info.features[key].labels for key in state_keys]
    return Origin(
        fps=info.fps,
        robot_type=info.robot_type,
        state_names=None if None in parts else tuple(name for part in parts for name in part),
        action_names=info.features[action_key].labels,
        others=tuple(key for key in info.features if key not in used),
    )
