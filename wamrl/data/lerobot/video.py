"""mp4 in and out through PyAV: frames by time, and one growing file per camera."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from wamrl.data.lerobot.schema import BROKEN
from wamrl.data.lfs import advice

CODECS = {"libsvtav1": {"preset": "12", "svtav1-params": "fast-decode=0"}, "h264": {}}


def pick_codec(name: str) -> str:
    """Name of the encoder; auto is AV1, as in lerobot, where this PyAV can write it."""
    name = "libsvtav1" if name == "av1" else name
    if name not in ("auto", *CODECS):
        raise ValueError(f"codec {name!r} is unknown: choose auto, {' or '.join(CODECS)}")
    if name == "auto":
        return "libsvtav1" if "libsvtav1" in av.codecs_available else "h264"
    return name


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """The calling thread is scheduled after the block as before it.

    SVT-AV1, where root runs it, makes the thread that opens an encoder a real-time one (SCHED_FIFO)
    and leaves it so: whatever it does next, and its children, would starve the whole machine.
    """
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    before = os.sched_getscheduler(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before:
            os.sched_setscheduler(0, before, os.sched_param(0))


class Writer:
    """One mp4. Frame k is shown at k / fps."""

    def __init__(
        self, path: Path, fps: int, hw: tuple[int, int], codec: str, gop: int, crf: int
    ) -> None:
        if codec == "h264" and (hw[0] % 2 or hw[1] % 2):
            raise ValueError(
                f"h264 needs even sizes, not {hw[0]} x {hw[1]}: use codec libsvtav1, or video=False"
            )
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        path.parent.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self.bytes = 0
        self._file = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        options = {"g": str(gop), "crf": str(crf)} | CODECS[codec]
        self._stream = self._file.add_stream(codec, rate=fps, options=options)
        self._stream.height, self._stream.width = hw
        self._stream.pix_fmt = "yuv420p"

    def add(self, frames: np.ndarray) -> None:
        """uint8 (n, H, W, 3)."""
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
            frame.pts = self.count
            self.count += 1
            with ordinary_priority():
                self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode what is still held back, and finish the file."""
        with ordinary_priority():
            self._mux(self._stream.encode())
            self._file.close()

    def _mux(self, packets: list) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._file.mux(packet)


class _Decoder:
    """Frames of one file by time; cheap when the times ascend."""

    def __init__(self, path: Path, hw: tuple[int, int], fps: float) -> None:
        self.path = path
        self.hw = hw
        self.fps = fps
        # the format is named, since others (playlists) would open further files
        self._file = av.open(str(path), format="mp4")
        try:
            self._stream = self._file.streams.video[0]
            if (self._stream.height, self._stream.width) != hw:
                found = f"{self._stream.height} x {self._stream.width}"
                raise ValueError(f"it is {found}, info.json says {hw[0]} x {hw[1]}")
            self._stream.codec_context.options = {
                "max_pixels": str(4 * max(hw[0], 64) * max(hw[1], 64))
            }
            self._stream.thread_type = "NONE"  # threads would decode far ahead of a random access
            self._stream.codec_context.thread_count = 1
        except Exception:
            self._file.close()
            raise
        self._frames: Iterator | None = None
        self._last = None
        # frames since a key frame, and the most that were ever seen
        self._run = 0
        self._gop = 1
        self._reformatter = VideoReformatter()  # to make one per frame costs more than decoding it

    def at(self, second: float) -> np.ndarray:
        """The frame shown at `second` (to half a frame), uint8 (H, W, 3)."""
        half = 0.5 / self.fps
        if self._last is not None and abs(self._last.time - second) < half:
            return self._rgb(self._last)
        if self._last is None or not 0 < second - self._last.time < (self._gop + 0.5) / self.fps:
            self._seek(second)
        for frame in self._frames:
            self._run = 0 if frame.key_frame else self._run + 1
            self._gop = max(self._gop, self._run)
            if frame.pts is None or frame.time <= second - half:
                continue
            self._last = frame
            if frame.time < second + half:
                return self._rgb(frame)
            break
        self._last = None
        raise ValueError(f"it has no frame at {second:.3f} s")

    def close(self) -> None:
        self._file.close()

    def _seek(self, second: float) -> None:
        self._file.seek(
            max(0, round(second / self._stream.time_base) - 1), stream=self._stream, backward=True
        )
        self._frames = self._file.decode(self._stream)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        if (frame.height, frame.width) != self.hw:
            raise ValueError(
                f"a frame is {frame.height} x {frame.width}, info.json says {self.hw[0]} x "
                f"{self.hw[1]}"
            )
        return self._reformatter.reformat(frame, format="rgb24").to_ndarray()


class Videos:
    """A few open decoders; the longest unused is closed first."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, _Decoder] = OrderedDict()

    def frames(
        self, path: Path, seconds: np.ndarray, hw: tuple[int, int], fps: float
    ) -> Iterator[np.ndarray]:
        """The frames shown at `seconds`, one after the other, uint8 (H, W, 3);
        ascending times are cheapest.

        ValueError if the file is missing, corrupt, of another size than `hw`,
        or has no frame within half a frame.
        """
        try:
            decoder = self._decoder(path, hw, fps)
            for second in seconds:
                yield decoder.at(float(second))
        except Exception as error:  # whatever PyAV makes of broken bytes
            if (decoder := self._open.pop(path, None)) is not None:
                decoder.close()
            raise ValueError(
                f"{path} is missing, corrupt or truncated ({error}): {advice(path, BROKEN)}"
            ) from None

    def close(self) -> None:
        """Close all files; a next `frames` opens what it needs again."""
        while self._open:
            self._open.popitem()[1].close()

    def _decoder(self, path: Path, hw: tuple[int, int], fps: float) -> _Decoder:
        if path not in self._open:
            self._open[path] = _Decoder(path, hw, fps)
            if len(self._open) > self._limit:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]
