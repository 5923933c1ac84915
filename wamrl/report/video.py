"""Imagined and executed frames side by side, as an MP4 that every browser plays (h264, yuv420p)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

_MIN_SIDE = 256  # pixels; smaller views are enlarged by whole factors, so that single pixels stay visible
_BAR, _GAP = 28, 8  # pixels; height of a line of text, space between pictures
_PAPER, _INK = 18, 235  # grey levels


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
    """Write a video: imagined at the left, executed at the right, one row per view, text above and below.

    executed, imagined: uint8 (F, V, H, W, 3). captions: one per frame, e.g. "+4"; outcome: shown on every frame, e.g.
    "success". real: bool (F,), False where there is no executed frame (beyond the episode's end): that half is greyed.
    ValueError if shapes do not fit.
    """
    executed, imagined = np.asarray(executed), np.asarray(imagined)
    frames = len(executed)
    if executed.shape != imagined.shape or executed.ndim != 5 or not frames or executed.shape[-1] != 3:
        raise ValueError(f"frames are {executed.shape} and {imagined.shape}: two equal (F, V, H, W, 3) are needed")
    if executed.dtype != np.uint8 or imagined.dtype != np.uint8:
        raise ValueError(f"frames are {executed.dtype} and {imagined.dtype}: uint8 is needed")
    captions = list(captions) or [""] * frames
    real = np.ones(frames, bool) if real is None else np.asarray(real, bool)
    if len(captions) != frames or len(real) != frames:
        raise ValueError(f"{len(captions)} captions and {len(real)} marks for {frames} frames: give one each")
    pictures = [
        compose(left, right if there else right // 4 + 40, captions[i], outcome)
        for i, (left, right, there) in enumerate(zip(imagined, executed, real, strict=True))
    ]
    _encode(Path(path), pictures, fps)


def compose(imagined: np.ndarray, executed: np.ndarray, caption: str, outcome: str) -> np.ndarray:
    """One picture of the video, uint8 (h, w, 3) with even h and w, from two (V, H, W, 3)."""
    columns = [_column(name, views) for name, views in (("imagined", imagined), ("executed", executed))]
    gap = np.full((columns[0].shape[0], _GAP, 3), _PAPER, np.uint8)
    body = np.concatenate([gap, columns[0], gap, columns[1], gap], axis=1)
    footer = text_image("   ".join(t for t in (caption, outcome) if t), body.shape[1], _tint(outcome))
    picture = np.concatenate([body, footer])
    return np.pad(picture, [(0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)], mode="edge")


def _column(title: str, views: np.ndarray) -> np.ndarray:
    factor = max(1, -(-_MIN_SIDE // min(views.shape[1:3])))
    large = views.repeat(factor, axis=1).repeat(factor, axis=2)
    gap = np.full((_GAP, large.shape[2], 3), _PAPER, np.uint8)
    return np.concatenate([text_image(title, large.shape[2], (_INK,) * 3), *(p for v in large for p in (v, gap))])


def _tint(outcome: str) -> tuple[int, int, int]:
    """Green for success, red for failure, else plain."""
    return {"success": (110, 220, 120), "failure": (255, 120, 110)}.get(outcome.split(" ")[0], (_INK,) * 3)


@lru_cache(maxsize=512)
def text_image(text: str, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    """One centred line of text, uint8 (28, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, _BAR / 100), dpi=100, facecolor=(_PAPER / 255,) * 3)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, text, ha="center", va="center_baseline", fontsize=11, color=[c / 255 for c in colour])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _encode(path: Path, pictures: list[np.ndarray], fps: int) -> None:
    import av  # slow to import

    draft = path.with_suffix(".tmp")
    with av.open(str(draft), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    draft.replace(path)
