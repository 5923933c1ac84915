"""Success rates and their differences, with 95 % intervals; `summary.json`."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

CONFIDENCE = 0.95
_RESAMPLES = 9999


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate, both ends in [0, 1];
    (0, 1) for n = 0, where nothing is known.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} episodes is not possible: check the counts")
    if n == 0:
        return 0.0, 1.0
    low, high = binomtest(int(successes), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """after - before on the same initial states; rates, so 0.1 means ten points."""

    episodes: int
    before: float
    after: float
    difference: float
    low: float  # 95 % interval of the difference, bootstrap over pairs
    high: float
    # "BCa"; "percentile" where that is undefined; "degenerate": see `paired_difference`
    method: str
    gained: int  # failed before, solved after
    lost: int  # solved before, failed after
    p_value: float  # McNemar's exact two-sided test of gained against lost


def paired_difference(before: np.ndarray, after: np.ndarray, seed: int = 0) -> Paired:
    """Compare success, bool (E,), of two arms on the same E initial states in the same order.

    Interval: bootstrap over pairs, 9,999 resamples. p: chance of a split as uneven as gained : lost
    under a fair coin. If all pairs changed alike, a bootstrap knows no other outcome and collapses
    to a point: method is "degenerate", and the p-value is what to read.
    """
    before, after = (np.asarray(x, bool).ravel() for x in (before, after))
    if len(before) != len(after) or not len(before):
        raise ValueError(
            f"{len(before)} and {len(after)} episodes are no pairs: evaluate both arms on the same "
            "starts"
        )
    change = after.astype(float) - before
    low, high, method = _interval(change, seed)
    gained = int((change > 0).sum())
    lost = int((change < 0).sum())
    return Paired(
        episodes=len(change),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float(change.mean()),
        low=low,
        high=high,
        method=method,
        gained=gained,
        lost=lost,
        p_value=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
    )


def _interval(change: np.ndarray, seed: int) -> tuple[float, float, str]:
    """A pair resampled is its difference resampled, so one column suffices."""
    if (change == change[0]).all():
        return float(change[0]), float(change[0]), "degenerate"
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy warns of degenerate data; we look at the result
            ends = bootstrap(
                (change,),
                np.mean,
                n_resamples=_RESAMPLES,
                batch=1000,
                method=method,
                confidence_level=CONFIDENCE,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(ends.low) and math.isfinite(ends.high):
            return float(ends.low), float(ends.high), method
    raise AssertionError("the percentile bootstrap is always defined")


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

    success: bool (E,); length: control steps (E,); error_over_copy: frame offset -> error of the
    imagined frame divided by the error of copying the last one.
    """
    success = np.asarray(success, bool)
    low, high = wilson(int(success.sum()), len(success))
    return {
        "task": task,
        "stages": stages,
        "seed": seed,
        "episodes": len(success),
        "successes": int(success.sum()),
        "rate": float(success.mean()) if len(success) else math.nan,
        "wilson95": [low, high],
        "mean_length": float(np.mean(length)) if len(success) else math.nan,
        "error_over_copy": {str(k): float(v) for k, v in error_over_copy.items()},
    }


def ratio_text(error_over_copy: dict[Any, float | None]) -> str:
    """`+4: 0.50, +8: -`: frame offset -> ratio, of which none (NaN, null) was measured at some."""
    known = {k: v for k, v in error_over_copy.items() if v is not None and math.isfinite(v)}
    shown = {k: f"{known[k]:.2f}" if k in known else "-" for k in error_over_copy}
    return ", ".join(f"+{k}: {text}" for k, text in shown.items())


def write_summary(path: Path, arms: dict[str, dict], pairs: dict[str, Paired], **more: Any) -> None:
    """Write `summary.json`: {"arms": {name: arm(...)}, "paired":
    {name: Paired}, ...more}; NaN becomes null.
    """
    content = {"arms": arms, "paired": {name: asdict(pair) for name, pair in pairs.items()}} | more
    draft = Path(path).with_suffix(".tmp")
    draft.write_text(
        json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    draft.replace(path)


def read_summary(path: Path) -> dict[str, Any]:
    """The content of `summary.json`; ValueError of one sentence if it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable summary ({error}): run the evaluation again"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
