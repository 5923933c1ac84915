"""Imagined and executed frames side by side, as an MP4 that every browser plays (h264, yuv420p)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Film:
    """One episode in pictures, as far as frames were taken; nothing of what came after its end."""

    executed: np.ndarray  # uint8 (F, V, H, W, 3)
    imagined: np.ndarray  # uint8 (F, V, H, W, 3), what the model foresaw for the same control steps
    steps: tuple[int, ...]  # F control steps since the initial state
    length: int  # control steps of the episode
    success: bool

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


def side_by_side(
    path: Path,
    executed: np.ndarray,
    imagined: np.ndarray,
    *,
    captions: Sequence[str] = (),
    outcome: str = "",
    real: np.ndarray | None = None,
    fps: int = 4,
) -> None:
    """Write a video: imagined at the left, executed at the right, one row per view.

    executed, imagined: uint8 (F, V, H, W, 3). captions: one per frame, e.g. "+4", shown below it.
    outcome: shown on every frame, e.g. "success". real: bool (F,), False where there is no executed
    frame (beyond the episode's end): that half is greyed. ValueError if shapes do not fit.
    """
    executed = np.asarray(executed)
    imagined = np.asarray(imagined)
    frames = len(executed)
    possible = executed.ndim == 5 and frames > 0 and executed.shape[-1] == 3
    if executed.shape != imagined.shape or not possible:
        raise ValueError(
            f"frames are {executed.shape} and {imagined.shape}: "
            "two equal (F, V, H, W, 3) are needed"
        )
    if executed.dtype != np.uint8 or imagined.dtype != np.uint8:
        raise ValueError(f"frames are {executed.dtype} and {imagined.dtype}: uint8 is needed")
    captions = list(captions) or [""] * frames
    real = np.ones(frames, bool) if real is None else np.asarray(real, bool)
    if len(captions) != frames or len(real) != frames:
        raise ValueError(
            f"{len(captions)} captions and {len(real)} marks for {frames} frames: give one each"
        )
    pictures = []
    for i in range(frames):
        right = executed[i] if real[i] else executed[i] // 4 + 40
        pictures.append(compose(imagined[i], right, captions[i], outcome))
    _encode(Path(path), pictures, fps)


def compose(imagined: np.ndarray, executed: np.ndarray, caption: str, outcome: str) -> np.ndarray:
    """One picture of the video, uint8 (h, w, 3) with even h and w, from two (V, H, W, 3)."""
    left = _column("imagined", imagined)
    right = _column("executed", executed)
    gap = np.full((len(left), _GAP, 3), _PAPER, np.uint8)
    body = np.concatenate([gap, left, gap, right, gap], axis=1)
    words = "   ".join(text for text in (caption, outcome) if text)
    footer = text_image(words, body.shape[1], _tint(outcome))
    return _even(np.concatenate([body, footer]))


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
        facts_of_episode = {"length": fact["length"], "success": fact["success"]}
        films[name] = Film(**parts, steps=tuple(fact["steps"]), **facts_of_episode)
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
        verb = "succeeds" if film.success else "fails"
        over = i >= len(film.steps) - 1
        footer = f"{film.outcome} at step {film.length}" if over else f"step {film.steps[at]}"
        pieces = [text_image(f"{name}: {verb}", width, tint)]
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


def _encode(path: Path, pictures: list[np.ndarray], fps: int, comment: str = "") -> None:
    import av  # slow to import

    with atomic_file(path) as draft, av.open(str(draft), "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream(
            "libx264", rate=fps, options={"crf": "18", "preset": "veryfast"}
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
