"""Episodes as a LeRobotDataset v3.0, one at a time, written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wamrl.data.lerobot import images, layout, stats
from wamrl.data.lerobot.episodes import EXTRA_VERSION, LAST_FRAME
from wamrl.data.lerobot.files import CopiedMp4, Films, Mp4, Parquet, Place
from wamrl.data.lerobot.schema import DATA_PATH, MAX_FPS, V30, VIDEO_PATH
from wamrl.data.lerobot.tables import arrow
from wamrl.data.lerobot.video import pick_codec
from wamrl.runtime.files import atomic_folder
from wamrl.types import Episode

STATE = "observation.state"
ACTION = "action"
EXECUTED = "complementary_info.executed"
CAMERA = "observation.images."
SUCCESS = "next.success"
_EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_BUFFER = 10  # episodes per row group of meta/episodes


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `write`."""

    views: tuple[str, ...]
    fps: int
    video: bool
    robot_type: str
    codec: str
    gop: int
    crf: int
    action_names: Sequence[str] | None
    state_names: Sequence[str] | None
    data_files_size_in_mb: float
    video_files_size_in_mb: float
    chunks_size: int
    films: Sequence[Films]

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(f"views {self.views} must be at least one name, and all different")
        if bad := [v for v in self.views if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", v)]:
            raise ValueError(
                f"view {bad[0]!r} is no name for a folder: use letters, digits, _ - and ."
            )
        if self.fps != int(self.fps) or not 1 <= self.fps <= MAX_FPS:
            raise ValueError(f"fps is {self.fps}: LeRobot wants a whole number from 1 to {MAX_FPS}")
        if (
            min(self.data_files_size_in_mb, self.video_files_size_in_mb) <= 0
            or self.chunks_size < 1
            or self.gop < 1
        ):
            raise ValueError("file sizes, chunks_size and gop must be above 0")


def write(
    path: Path | str,
    episodes: Iterable[Episode],
    *,
    views: Sequence[str],
    fps: int,
    video: bool = True,
    robot_type: str = "",
    codec: str = "auto",
    gop: int = 2,
    crf: int = 30,
    action_names: Sequence[str] | None = None,
    state_names: Sequence[str] | None = None,
    data_files_size_in_mb: float = 100,
    video_files_size_in_mb: float = 200,
    chunks_size: int = 1000,
    films: Sequence[Films] = (),
) -> None:
    """Write the new folder `path`; one episode is in memory at a time.

    An episode of S actions becomes S rows. The frame and the state after the last action are kept
    where lerobot does not look: see docs/data.md. Where the first episode's success is unknown
    (None) there is no column next.success. Numbers come back bit by bit, images too with
    video=False (PNG); video is lossy.

    views: names of the V cameras. fps: control steps per second, a whole number.
    codec: "libsvtav1" (or "av1"), "h264" or "auto" (the first of them that is there). gop: frames
    per key frame. crf: quality, lower is better. films: of each view, videos that hold the
    episodes' frames already (`LeRobotRecording.films`): copied, nothing is encoded.

    ValueError of one sentence if the path exists, an episode is malformed or holds NaN, or writing
    fails; nothing is left behind then.
    """
    options = Options(
        views=tuple(views),
        fps=fps,
        video=video,
        robot_type=robot_type,
        codec=pick_codec(codec),
        gop=gop,
        crf=crf,
        action_names=action_names,
        state_names=state_names,
        data_files_size_in_mb=data_files_size_in_mb,
        video_files_size_in_mb=video_files_size_in_mb,
        chunks_size=chunks_size,
        films=tuple(films),
    )
    arrow()
    with atomic_folder(path) as draft:
        _fill(draft, options, episodes)


def _fill(draft: Path, options: Options, episodes: Iterable[Episode]) -> None:
    """The whole dataset in the folder `draft`."""
    dataset = _Dataset(draft, options)
    try:
        for episode in episodes:
            dataset.add(episode)
    finally:
        dataset.close()
    dataset.describe()


class _Dataset:
    """The draft."""

    def __init__(self, root: Path, options: Options) -> None:
        self.root = root
        self.o = options
        size = options.chunks_size
        self.data = Parquet(Place(root, DATA_PATH, size), options.data_files_size_in_mb)
        self.meta = Parquet(Place(root, _EPISODES_PATH, size), options.data_files_size_in_mb)
        self.keys = [CAMERA + view for view in options.views]
        how = (
            options.video_files_size_in_mb,
            int(options.fps),
            options.codec,
            options.gop,
            options.crf,
        )
        places = [Place(root, VIDEO_PATH.replace("{video_key}", key), size) for key in self.keys]
        self.videos: list[Mp4 | CopiedMp4] = []
        if options.films:
            self.videos += map(CopiedMp4, places, options.films)
        elif options.video:
            self.videos += [Mp4(place, *how) for place in places]
        self.tasks: dict[str, int] = {}
        self.rows: list[dict] = []
        self.stats: dict[str, stats.Stats] = {}
        self.count = 0
        self.frames = 0
        self.shape: dict[str, tuple] = {}
        # by the first episode: without it nobody could tell a failure from what is not known
        self.tells_success: bool | None = None

    def add(self, episode: Episode) -> None:
        self._check(episode)
        steps = len(episode.actions)
        task = self.tasks.setdefault(episode.text, len(self.tasks))
        frame = np.arange(steps)
        columns = {
            STATE: episode.proprio[:-1],
            ACTION: episode.actions,
            EXECUTED: episode.executed,
            "timestamp": (frame / self.o.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(steps, self.count),
            "index": self.frames + frame,
            "task_index": np.full(steps, task),
            "next.done": frame == steps - 1,
        }
        if self.tells_success is None:
            self.tells_success = episode.success is not None
        if self.tells_success:
            columns[SUCCESS] = (frame == steps - 1) & bool(episode.success)
        row = {"episode_index": self.count, "tasks": [episode.text], "length": steps}
        cells = {}
        for view, key in enumerate(self.keys):
            shots = episode.frames[:, view]
            if self.o.video:
                begin = self.videos[view].add(shots)
                row |= {f"videos/{key}/{k}": v for k, v in _at(self.videos[view].place).items()}
                row |= {
                    f"videos/{key}/from_timestamp": begin,
                    f"videos/{key}/to_timestamp": begin + steps / self.o.fps,
                }
            else:
                *cells[key], row[LAST_FRAME + key] = map(images.encode, shots)
        self.data.make_room(steps)
        self.data.add(layout.data_table(columns, cells))
        row |= {f"data/{k}": v for k, v in _at(self.data.place).items()}
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps}
        row |= {"wamrl/version": EXTRA_VERSION, "wamrl/success": episode.success}
        row |= {"wamrl/stages": int(episode.stages), "wamrl/seed": int(episode.seed)}
        row |= {"wamrl/last_state": episode.proprio[-1]}
        self._note_stats(columns, episode.frames[:-1], row)
        self.rows.append(row)
        self.count = self.count + 1
        self.frames = self.frames + steps
        if len(self.rows) == _BUFFER:
            self._flush()

    def close(self) -> None:
        """Let go of every file; also after an error."""
        self._flush()
        for file in (self.data, self.meta, *self.videos):
            file.close()

    def describe(self) -> None:
        """meta/info.json, stats.json and tasks.parquet."""
        if not self.count:
            raise ValueError("there is no episode to write: record at least one")
        for name, content in {"stats": stats.as_lists(self.stats), "info": self._info()}.items():
            (self.root / f"meta/{name}.json").write_text(
                json.dumps(content, indent=4), encoding="utf-8"
            )
        layout.write_tasks(self.root / "meta/tasks.parquet", list(self.tasks))

    def _check(self, episode: Episode) -> None:
        """Shapes, dtypes and values, and the same as in the first episode."""
        where = f"episode {self.count}"
        steps = len(episode.actions)
        rows = {"frames": steps + 1, "proprio": steps + 1, "actions": steps, "executed": steps}
        for name, expected in rows.items():
            array = getattr(episode, name)
            dtype, dims = (np.uint8, 5) if name == "frames" else (np.float32, 2)
            if array.dtype != dtype or array.ndim != dims or len(array) != expected or steps < 1:
                raise ValueError(
                    f"{where}: {name} is {array.dtype} {array.shape}: make it as "
                    "wamrl.types.Episode says"
                )
            if array.shape[1:] != self.shape.setdefault(name, array.shape[1:]):
                raise ValueError(
                    f"{where}: {name} is {array.shape}, before {self.shape[name]}: write them apart"
                )
            if dtype == np.float32 and not np.isfinite(array).all():
                raise ValueError(f"{where}: {name} holds NaN or infinity: remove that episode")
        if self.shape["frames"][0] != len(self.keys) or self.shape["frames"][-1] != 3:
            raise ValueError(
                f"{where}: frames are {episode.frames.shape} of {len(self.keys)} views: name every "
                "view"
            )
        if self.shape["actions"] != self.shape["executed"] or 0 in (
            *self.shape["actions"],
            *self.shape["proprio"],
        ):
            raise ValueError(
                f"{where}: executed must be as wide as actions, and neither they nor proprio empty"
            )

    def _note_stats(self, columns: dict[str, np.ndarray], frames: np.ndarray, row: dict) -> None:
        """Of this episode into its row, and into those of all."""
        mine = {
            key: stats.of_column(values.reshape(len(values), -1)) for key, values in columns.items()
        }
        some = frames[stats.sample(len(frames))]
        mine |= {key: stats.of_images(some[:, view]) for view, key in enumerate(self.keys)}
        for key, entry in mine.items():
            row |= {f"stats/{key}/{name}": value for name, value in entry.items()}
            self.stats[key] = stats.merge([self.stats[key], entry]) if key in self.stats else entry

    def _flush(self) -> None:
        if not self.rows:
            return
        self.meta.make_room(len(self.rows))
        place = {f"meta/episodes/{k}": v for k, v in _at(self.meta.place).items()}
        self.meta.add(layout.episodes_table([row | place for row in self.rows]))
        self.rows = []

    def _info(self) -> dict:
        features = {
            STATE: layout.vector("float32", self.shape["proprio"][0], self.o.state_names),
            ACTION: layout.vector("float32", self.shape["actions"][0], self.o.action_names),
            EXECUTED: layout.vector("float32", self.shape["actions"][0], self.o.action_names),
        }
        how = (
            {"codec": self.o.codec, "gop": self.o.gop, "crf": self.o.crf} if self.o.video else None
        )
        features |= {
            key: layout.camera(self.shape["frames"][1:3], int(self.o.fps), how) for key in self.keys
        }
        for key, films in zip(self.keys, self.o.films, strict=False):
            features[key]["info"] = films.about
        scalars = {k: v for k, v in layout.SCALARS.items() if k != SUCCESS or self.tells_success}
        features |= {key: layout.vector(dtype, 1, None) for key, dtype in scalars.items()}
        return {
            "codebase_version": V30,
            "robot_type": self.o.robot_type or None,
            "total_episodes": self.count,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": self.o.chunks_size,
            "data_files_size_in_mb": self.o.data_files_size_in_mb,
            "video_files_size_in_mb": self.o.video_files_size_in_mb,
            "fps": int(self.o.fps),
            "splits": {"train": f"0:{self.count}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.o.video else None,
            "features": features,
        }


def _at(place: Place) -> dict[str, int]:
    return {"chunk_index": place.chunk, "file_index": place.file}
