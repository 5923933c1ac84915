"""min, max, mean, std, count and quantiles per feature,
in the layout that lerobot keeps them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wamrl.data.recording import Recording

Stats = dict[str, np.ndarray]
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_SAMPLES = 100  # pictures of an episode
_SIDE = 150  # pixels: larger pictures are thinned out


def of_column(values: np.ndarray) -> Stats:
    """(n, D) numbers: every entry (D,), `count` (1,)."""
    wide = np.asarray(values, dtype=np.float64)
    found = {"min": wide.min(0), "max": wide.max(0), "mean": wide.mean(0), "std": wide.std(0)}
    quantiles = np.quantile(wide, list(QUANTILES.values()), axis=0)
    return found | {"count": np.array([len(wide)])} | dict(zip(QUANTILES, quantiles, strict=True))


def of_images(frames: np.ndarray) -> Stats:
    """uint8 (n, H, W, 3): every entry (3, 1, 1) in [0, 1],
    from pixels thinned out to about 150 per side.
    """
    skip = max(1, max(frames.shape[1:3]) // _SIDE)
    thin = frames[:, ::skip, ::skip]
    found = of_column(thin.reshape(-1, 3))
    count = np.array([len(frames)])
    return {k: count if k == "count" else v.reshape(3, 1, 1) / 255 for k, v in found.items()}


def sample(rows: int) -> np.ndarray:
    """int64: up to 100 rows out of `rows`, evenly spread."""
    return np.unique(np.round(np.linspace(0, rows - 1, min(rows, _SAMPLES))).astype(np.int64))


def merge(parts: Sequence[Stats]) -> Stats:
    """Of the parts' union. Exact, but for the quantiles:
    the weighted mean of the parts', as lerobot does.
    """
    counts = np.array([p["count"][0] for p in parts], dtype=np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    stacked = {k: np.stack([p[k] for p in parts]) for k in parts[0] if k != "count"}
    mean = (stacked["mean"] * weights).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weights).sum(0)
    found = {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    found["count"] = np.array([int(counts.sum())])
    return found | {q: (stacked[q] * weights).sum(0) for q in QUANTILES}


def stats(recording: Recording, images: bool = True) -> dict[str, Stats]:
    """Per feature, exact over all rows; of the cameras 100 evenly spread frames.

    Keys: observation.state (all S+1 rows of an episode), action, complementary_info.executed,
    observation.images.<view>. Entries (D,), of images (3, 1, 1) in [0, 1], `count` (1,).
    """
    found = {
        "observation.state": of_column(recording.proprio),
        "action": of_column(recording.actions),
        "complementary_info.executed": of_column(recording.executed),
    }
    if images:
        frames = recording.frames(sample(len(recording.proprio)))
        found |= {
            f"observation.images.{v}": of_images(frames[:, i])
            for i, v in enumerate(recording.views)
        }
    return found


def as_lists(found: dict[str, Stats]) -> dict[str, dict[str, list]]:
    """Ready for JSON."""
    return {
        key: {name: value.tolist() for name, value in entry.items()} for key, entry in found.items()
    }
