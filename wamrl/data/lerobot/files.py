"""The growing files of a dataset that is being written:
parquet and mp4, a new one where the old is big enough.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wamrl.data.lerobot import video
from wamrl.data.lerobot.schema import fill
from wamrl.data.lerobot.tables import arrow


class Place:
    """chunk-xxx/file-xxx, counted up."""

    def __init__(self, root: Path, template: str, chunks_size: int) -> None:
        self.chunk = 0
        self.file = 0
        self._root = root
        self._template = template
        self._size = chunks_size

    def next(self) -> None:
        """Go on to the next file, in a new chunk where this one is full."""
        self.file += 1
        if self.file == self._size:
            self.chunk = self.chunk + 1
            self.file = 0

    @property
    def path(self) -> Path:
        """The file as it is counted now; its folder is made."""
        path = self._root / fill(
            self._template, {"chunk_index": self.chunk, "file_index": self.file}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class Parquet:
    """Tables appended to each other, one row group each."""

    def __init__(self, place: Place, limit_mb: float) -> None:
        self.place = place
        self._limit = limit_mb * 2**20
        self._writer = None
        self._rows = 0

    def make_room(self, rows: int) -> None:
        """Go on in a new file if `rows` more would make this one too big."""
        if self._writer is not None:
            size = self.place.path.stat().st_size
            if size + size / self._rows * rows >= self._limit:
                self.close()
                self.place.next()

    def add(self, table) -> None:
        """Append a pyarrow table; the first one decides the columns of the file."""
        if self._writer is None:
            _, pq = arrow()
            self._writer = pq.ParquetWriter(
                self.place.path, table.schema, compression="snappy", write_page_checksum=True
            )
            self._rows = 0
        self._writer.write_table(table.cast(self._writer.schema))
        self._rows += len(table)

    def close(self) -> None:
        """Finish the file; a next `add` begins it anew, so call `place.next` between."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Mp4:
    """The episodes of one camera behind each other."""

    def __init__(
        self, place: Place, limit_mb: float, fps: int, codec: str, gop: int, crf: int
    ) -> None:
        self.place = place
        self._limit = limit_mb * 2**20
        self._fps = fps
        self._how = (codec, gop, crf)
        self._writer: video.Writer | None = None

    def add(self, frames: np.ndarray) -> float:
        """uint8 (n, H, W, 3), never split over files; the second at which the first is shown."""
        old = self._writer
        if old is not None and old.bytes + old.bytes / old.count * len(frames) >= self._limit:
            self.close()
            self.place.next()
        if self._writer is None:
            self._writer = video.Writer(self.place.path, self._fps, frames.shape[1:3], *self._how)
        begin = self._writer.count / self._fps
        self._writer.add(frames)
        return begin

    def close(self) -> None:
        """Finish the film; a next `add` begins it anew, so call `place.next` between."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass(frozen=True, kw_only=True)
class Films:
    """The videos of one camera of another dataset, to be taken as they are."""

    about: dict  # codec, pixel format, ..., as info.json has it
    places: list[tuple[Path, float]]  # of every episode: file, second of its first frame


class CopiedMp4:
    """As `Mp4`, but nothing is encoded: every file is copied when its first episode comes."""

    def __init__(self, place: Place, films: Films) -> None:
        self.place = place
        self._places: Iterator[tuple[Path, float]] = iter(films.places)
        self._now: Path | None = None

    def add(self, frames: np.ndarray) -> float:
        """The second at which the next episode begins; `frames` are known to be in its file."""
        path, begin = next(self._places)
        if path != self._now:
            if self._now is not None:
                self.place.next()
            shutil.copyfile(path, self.place.path)
            self._now = path
        return begin

    def close(self) -> None:
        """Nothing is open."""
