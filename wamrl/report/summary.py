"""The numbers of the evaluated models: `summary.json`, see docs/metrics.md."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wamrl.runtime.files import write_text
from wamrl.stats.paired import Paired, wilson


def arm(
    *,
    task: str,
    stages: int,
    seed: int,
    success: np.ndarray,
    length: np.ndarray,
    error_over_copy: dict[int, float],
) -> dict[str, Any]:
    """One evaluated arm for `summary.json`.

    success: bool (E,). length: control steps (E,). error_over_copy: frame offset -> error of the
    imagined frame divided by the error of copying the last one. The rate comes with Wilson's 95 %
    interval.
    """
    success = np.asarray(success, bool)
    wins = int(success.sum())
    low, high = wilson(wins, len(success))
    return {
        "task": task,
        "stages": stages,
        "seed": seed,
        "episodes": len(success),
        "successes": wins,
        "rate": float(success.mean()) if len(success) else math.nan,
        "wilson95": [low, high],
        "mean_length": float(np.mean(length)) if len(success) else math.nan,
        "error_over_copy": {str(k): float(v) for k, v in error_over_copy.items()},
    }


def ratio_text(error_over_copy: dict[Any, float | None]) -> str:
    """Frame offset -> ratio as "+4: 0.50, +8: -"; a dash where none was measured (NaN, None)."""
    parts = []
    for offset, ratio in error_over_copy.items():
        known = ratio is not None and math.isfinite(ratio)
        parts.append(f"+{offset}: {ratio:.2f}" if known else f"+{offset}: -")
    return ", ".join(parts)


def write_summary(path: Path, arms: dict[str, dict], pairs: dict[str, Paired], **more: Any) -> None:
    """Write `summary.json`: arms by name, see `arm`; paired differences by name; whatever else.

    NaN becomes null. ValueError of one sentence where it cannot be written.
    """
    paired = {name: asdict(pair) for name, pair in pairs.items()}
    content = {"arms": arms, "paired": paired} | more
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def read_summary(path: Path) -> dict[str, Any]:
    """The content of `summary.json`; ValueError of one sentence if it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable summary ({error}): run the evaluation again"
        ) from error


def _plain(value: Any) -> Any:
    """As JSON has it: text as keys, lists, null for what is not a finite number."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
