"""Imagined and executed frames side by side, as an MP4 that every browser plays (h264, yuv420p).

How an episode ends is not said before its last picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from wamrl.runtime.files import atomic_file

# pixels; smaller views are enlarged by whole factors, so that single pixels stay visible
_MIN_SIDE = 256
_BAR = 28  # pixels, height of a line of text
_GAP = 8  # pixels between pictures
_PAPER = 18  # grey level
_INK = 235  # grey level
_ROWS = ("executed", "imagined")  # of a comparison
_FULL_ERROR = 96  # grey levels, mean over the colours, that have the brightest colour of the map
_MOST_FPS = 24  # pictures per second: what is faster in its world is shown slowed down
_FPS = 4  # where only the frames that somebody looked at are there


@dataclass(frozen=True, kw_only=True)
class Film:
    """One episode in pictures, as far as frames were taken; nothing of what came after its end."""

    executed: np.ndarray  # uint8 (F, V, H, W, 3)
    imagined: np.ndarray  # uint8 (F, V, H, W, 3), what the model foresaw for the same control steps
    steps: tuple[int, ...]  # F control steps since the initial state
    length: int  # control steps of the episode
    success: bool
    instruction: str = ""
    control_hz: float | None = None  # control steps per second of its world, if known
    # uint8 (S+1, V, H, W, 3), the episode at every control step from its initial state on, if it
    # was played again with everything looked at
    every: np.ndarray | None = None
    state: np.ndarray | None = None  # float32 (S+1, P), the robot's own, beside `every`

    def __post_init__(self) -> None:
        shape = self.executed.shape
        other = self.imagined.shape
        if shape != other or len(shape) != 5 or not 0 < shape[0] == len(self.steps):
            raise ValueError(
                f"a film of {shape} executed and {other} imagined frames at {len(self.steps)} "
                "steps is not possible: give (F, V, H, W, 3) twice and F > 0 steps"
            )

    @property
    def outcome(self) -> str:
        """As captions say it: success or failure."""
        return "success" if self.success else "failure"


def side_by_side(path: Path, film: Film, *, title: str = "") -> None:
    """Write a video: imagined, executed and their difference in columns, one row per view.

    title: what is shown, such as "initial state 3"; stands before the control step. With
    `film.every` each control step has a picture: beside it the imagined frame that comes next, and
    the error of the last one that came. Else each imagined frame has one.
    """
    whole = film.every is not None
    last = len(film.every) - 1 if whole else film.steps[-1]
    shown = range(last + 1) if whole else film.steps
    pictures = [_side_by_side(film, step, title, over=step == last) for step in shown]
    facts = {"instruction": film.instruction, "control_hz": film.control_hz}
    fps = playback_fps(film.control_hz) if whole else _FPS
    _encode(Path(path), pictures, fps, comment=json.dumps(facts))


def playback_fps(control_hz: float | None) -> Fraction:
    """Pictures per second for one a control step: its world's own pace, or a whole number of times
    slower; 12 where that pace is not known.
    """
    if control_hz is None:
        return Fraction(12)
    slower = max(1, math.ceil(control_hz / _MOST_FPS))
    return Fraction(control_hz / slower).limit_denominator(1000)


def error_map(imagined: np.ndarray, executed: np.ndarray) -> np.ndarray:
    """uint8 (V, H, W, 3) twice -> the same: from black, no error, to white, 96 grey levels or more;
    the absolute difference, mean over the colours.
    """
    from matplotlib import colormaps  # slow to import

    error = np.abs(imagined.astype(np.float32) - executed).mean(-1) / _FULL_ERROR
    return (colormaps["inferno"](error.clip(0, 1))[..., :3] * 255).round().astype(np.uint8)


def _side_by_side(film: Film, step: int, title: str, *, over: bool) -> np.ndarray:
    """The picture of a control step, uint8 (h, w, 3) with even h and w."""
    steps = np.array(film.steps)
    coming = min(int(np.searchsorted(steps, step)), len(steps) - 1)
    came = int(np.searchsorted(steps, step, side="right")) - 1
    executed = film.executed[came] if film.every is None else film.every[step]
    columns = [
        _column(f"imagined for step {steps[coming]}", film.imagined[coming]),
        _column("executed", executed),
    ]
    if came >= 0:
        error = error_map(film.imagined[came], film.executed[came])
        columns.append(_column(f"error at step {steps[came]}", error))
    else:
        columns.append(_column("error: none yet", np.full_like(executed, _PAPER + 12)))
    gap = np.full((len(columns[0]), _GAP, 3), _PAPER, np.uint8)
    pieces = [gap]
    for column in columns:
        pieces += [column, gap]
    body = np.concatenate(pieces, axis=1)
    tint = _tint(film.outcome if over else "")
    when = f"{film.outcome} at step {film.length}" if over else _when(step, film)
    half = body.shape[1] // 2  # apart, since the left one is the same in all pictures
    left = text_image(title, half, (_INK,) * 3)
    right = text_image(when, body.shape[1] - half, tint)
    rows = [body, np.concatenate([left, right], axis=1)]
    if film.instruction:
        rows.insert(0, text_image(_short(film.instruction), body.shape[1], (_INK,) * 3))
    return _even(np.concatenate(rows))


def _when(step: int, film: Film) -> str:
    """ "step 12", and how long that is in its world."""
    seconds = "" if film.control_hz is None else f", {step / film.control_hz:.2f} s"
    return f"step {step}{seconds}"


def _short(text: str) -> str:
    """An instruction, as much as fits over three columns."""
    return text if len(text) <= 80 else f"{text[:78]}..."


def comparison(path: Path, films: dict[str, Film], *, fps: int = 4) -> None:
    """Write a video of episodes from one initial state: a column each, executed above imagined.

    films: by the name of what acted, such as before and after. An episode that has ended stays at
    its last frame. `read_comparison` gives the films back, up to the loss of the compression.
    """
    pictures = [compose_films(films, i) for i in range(max(len(f.steps) for f in films.values()))]
    facts = {
        name: {
            "steps": film.steps,
            "length": film.length,
            "success": film.success,
            "views": film.executed.shape[1],
            "hw": film.executed.shape[2:4],
            "instruction": film.instruction,
            "control_hz": film.control_hz,
        }
        for name, film in films.items()
    }
    _encode(Path(path), pictures, fps, comment=json.dumps(facts))


def read_comparison(path: Path) -> dict[str, Film]:
    """The films of a video that `comparison` wrote; ValueError where it is not one."""
    import av

    try:
        with av.open(str(path)) as container:
            facts = json.loads(container.metadata.get("comment", ""))
            decoded = container.decode(video=0)
            pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{path} is no comparison that a run has written: {error}") from error
    films = {}
    left = _GAP
    for name, fact in facts.items():
        high, wide = fact["hw"]
        views = fact["views"]
        factor = _factor((high, wide))
        height = high * factor
        width = views * wide * factor
        parts = {}
        for row, part in enumerate(_ROWS):
            top = 2 * _BAR + row * (height + _BAR)
            big = pictures[: len(fact["steps"]), top : top + height, left : left + width]
            blocks = big.reshape(len(big), high, factor, views, wide, factor, 3)
            small = np.median(blocks, axis=(2, 5)).round().astype(np.uint8)
            parts[part] = small.transpose(0, 2, 1, 3, 4)
        told = {k: fact[k] for k in ("length", "success", "instruction", "control_hz") if k in fact}
        films[name] = Film(**parts, steps=tuple(fact["steps"]), **told)
        left += width + _GAP
    return films


def compose_films(films: dict[str, Film], i: int, factor: int = 0) -> np.ndarray:
    """Picture i of a comparison, uint8 (h, w, 3) with even h and w; pixels enlarged `factor` times.

    factor: 0 chooses the one of the run's videos.
    """
    columns = []
    for name, film in films.items():
        at = min(i, len(film.steps) - 1)
        panels = [panel(frames[at], factor) for frames in (film.executed, film.imagined)]
        width = panels[0].shape[1]
        tint = _tint(film.outcome)
        over = i >= len(film.steps) - 1
        footer = f"{film.outcome} at step {film.length}" if over else _when(film.steps[at], film)
        pieces = [text_image(name, width, (_INK,) * 3)]
        for row, picture in zip(_ROWS, panels, strict=True):
            pieces += [text_image(row, width, (_INK,) * 3), picture]
        pieces.append(text_image(footer, width, tint if over else (_INK,) * 3))
        columns.append(np.concatenate(pieces))
    gap = np.full((columns[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    pieces = [gap]
    for column in columns:
        pieces += [column, gap]
    return _even(np.concatenate(pieces, axis=1))


def panel(views: np.ndarray, factor: int = 0) -> np.ndarray:
    """(V, H, W, 3) -> (H * factor, V * W * factor, 3): the views in a row; 0 as `compose_films`."""
    factor = factor or _factor(views.shape[1:3])
    wide = np.concatenate(list(views), axis=1)
    return wide.repeat(factor, axis=0).repeat(factor, axis=1)


def _factor(hw: Sequence[int]) -> int:
    return max(1, -(-_MIN_SIDE // min(hw)))


def _even(picture: np.ndarray) -> np.ndarray:
    high, wide = picture.shape[:2]
    return np.pad(picture, [(0, high % 2), (0, wide % 2), (0, 0)], mode="edge")


def _column(title: str, views: np.ndarray) -> np.ndarray:
    factor = _factor(views.shape[1:3])
    large = views.repeat(factor, axis=1).repeat(factor, axis=2)
    gap = np.full((_GAP, large.shape[2], 3), _PAPER, np.uint8)
    pieces = [text_image(title, large.shape[2], (_INK,) * 3)]
    for view in large:
        pieces += [view, gap]
    return np.concatenate(pieces)


def _tint(outcome: str) -> tuple[int, int, int]:
    """Green for success, red for failure, else plain."""
    tints = {"success": (110, 220, 120), "failure": (255, 120, 110)}
    return tints.get(outcome.split(" ")[0], (_INK,) * 3)


@lru_cache(maxsize=512)
def text_image(text: str, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    """One centred line of text, uint8 (28, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, _BAR / 100), dpi=100, facecolor=(_PAPER / 255,) * 3)
    canvas = FigureCanvasAgg(figure)
    figure.text(
        0.5,
        0.5,
        text,
        ha="center",
        va="center_baseline",
        fontsize=11,
        color=[c / 255 for c in colour],
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _encode(path: Path, pictures: list[np.ndarray], fps: Fraction | int, comment: str = "") -> None:
    import av  # slow to import

    with atomic_file(path) as draft, av.open(str(draft), "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "18", "preset": "veryfast", "g": "12"}
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
