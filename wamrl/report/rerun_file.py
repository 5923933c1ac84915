"""An episode as a recording of rerun (https://rerun.io): pictures and numbers on one time line.

What is not a picture is a `Signal`. Without the package, `require_rerun` says how to get it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wamrl.report.video import Film, error_map
from wamrl.runtime.files import atomic_file

if TYPE_CHECKING:
    from rerun import RecordingStream, TimeColumn

STEP = "control_step"
TIME = "simulated_time"  # seconds; where the environment says how long a control step is


@dataclass(frozen=True)
class Signal:
    """Numbers of an episode."""

    steps: np.ndarray  # int64 (K,), control steps since the initial state
    values: np.ndarray  # float32 (K, N), a row for each of these steps
    unit: str  # what they are, in words


def require_rerun() -> None:
    """ValueError of one sentence where rerun is not installed."""
    if find_spec("rerun") is None:
        raise ValueError(
            "a recording for rerun needs the package rerun-sdk: pip install -e '.[rerun]', in an "
            "environment without robosuite, which holds numpy below 2"
        )


def write_recording(
    path: Path, film: Film, signals: dict[str, Signal], views: tuple[str, ...], *, title: str = ""
) -> None:
    """Write an .rrd file of one episode: `rerun FILE.rrd` shows it.

    views: names of the V cameras. A picture stands at the control step that it is of: the executed
    one, the one imagined for it, and the error between them as in videos.
    """
    import rerun  # slow to import

    recording = rerun.RecordingStream("wamrl")
    with atomic_file(path) as draft:
        recording.save(str(draft))
        recording.send_recording_name(title)
        recording.log("about", rerun.TextDocument(_about(film, signals, title)), static=True)
        _send_pictures(recording, film, views)
        for name, signal in signals.items():
            width = signal.values.shape[1]
            names = [f"{name} {i}" if width > 1 else name for i in range(width)]
            recording.log(name, rerun.SeriesLines(names=names), static=True)
            numbers = rerun.Scalars.columns(scalars=signal.values.ravel().astype(np.float64))
            rows = numbers.partition([width] * len(signal.steps))
            recording.send_columns(name, indexes=_times(signal.steps, film), columns=rows)
        recording.disconnect()  # writes what is not written


def _about(film: Film, signals: dict[str, Signal], title: str) -> str:
    """What the file holds, in words."""
    pace = "not known" if film.control_hz is None else f"{film.control_hz:g} control steps a second"
    lines = [
        title,
        f"instruction: {film.instruction}",
        f"{film.outcome} after {film.length} control steps",
        f"pace of the simulated world: {pace}",
        *(f"{name}: {signal.unit}" for name, signal in signals.items()),
    ]
    return "\n\n".join(line for line in lines if line)


def _send_pictures(recording: RecordingStream, film: Film, views: tuple[str, ...]) -> None:
    """executed/VIEW, imagined/VIEW and error/VIEW."""
    due = np.array(film.steps)
    whole = film.every is not None
    seen = film.every if whole else film.executed
    error = [error_map(*pair) for pair in zip(film.imagined, film.executed, strict=True)]
    kinds = {
        "executed": (np.arange(len(seen)) if whole else due, seen),
        "imagined": (due, film.imagined),
        "error": (due, error),
    }
    for kind, (steps, pictures) in kinds.items():
        for view, name in enumerate(views):
            columns = _pictures([picture[view] for picture in pictures])
            recording.send_columns(f"{kind}/{name}", indexes=_times(steps, film), columns=columns)


def _pictures(pictures: list[np.ndarray]) -> Any:
    """Columns of PNG files, of uint8 (H, W, 3) each."""
    import rerun
    from PIL import Image

    blobs = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png")
        blobs.append(file.getvalue())
    return rerun.EncodedImage.columns(blob=blobs, media_type=["image/png"] * len(blobs))


def _times(steps: np.ndarray, film: Film) -> list[TimeColumn]:
    """When these control steps are, on both time lines."""
    import rerun

    times = [rerun.TimeColumn(STEP, sequence=steps)]
    if film.control_hz is not None:
        times.append(rerun.TimeColumn(TIME, duration=steps / film.control_hz))
    return times
