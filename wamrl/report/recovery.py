"""What came of failing: did a policy try again, and did it then succeed?

Read off the two counters of `wamrl/envs/attempts.py`, where an environment has them; nothing after
the environments but this file knows their names. Throughout, for E episodes and C counters:
    names     tuple[str, ...]  C names, `EnvSpec.counters`
    counters  int (E, C)       as they stood at the episodes' ends
    success   bool (E,)
An episode was tried again if it has a retry; it was recovered if it succeeded, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wamrl.stats.paired import wilson

ATTEMPTS = "attempts"
RETRIES = "retries"
RECOVERY_COUNTERS = (ATTEMPTS, RETRIES)


def counter_metrics(
    names: tuple[str, ...], counters: np.ndarray, success: np.ndarray
) -> dict[str, float]:
    """The means of all counters, and the shares of episodes tried again and recovered."""
    means = dict(zip(names, counters.mean(0).tolist(), strict=True))
    metrics = {f"rollout/counter/{name}": mean for name, mean in means.items()}
    again = _tried_again(names, counters)
    if again is not None:
        metrics["rollout/attempts"] = means[ATTEMPTS]
        metrics["rollout/reattempted"] = float(again.mean())
        if again.any():
            metrics["rollout/recovered"] = float(success[again].mean())
    return metrics


def recovery(names: tuple[str, ...], counters: np.ndarray, success: np.ndarray) -> dict[str, Any]:
    """For an arm of `summary.json`: per episode, in total, and Wilson's 95 % interval.
    Empty where it is not counted.
    """
    again = _tried_again(names, counters)
    if again is None:
        return {}
    tried = int(again.sum())
    recovered = int(success[again].sum())
    return {
        "attempts": counters[:, names.index(ATTEMPTS)].tolist(),
        "retries": counters[:, names.index(RETRIES)].tolist(),
        "reattempted": tried,
        "recovered": recovered,
        "recovered95": list(wilson(recovered, tried)),
    }


def recovery_line(names: tuple[str, ...], counters: np.ndarray, success: np.ndarray) -> str:
    """For the console; empty where it is not counted."""
    found = recovery(names, counters, success)
    if not found:
        return ""
    tried = f"{found['reattempted']} tried again after a failed attempt"
    return f"{tried}, {found['recovered']} of them succeeded"


def recovered_in(arm: dict[str, Any]) -> tuple[int, int] | None:
    """Of an arm of a saved `summary.json`: episodes tried again and recovered,
    None where it was not counted.

    Summaries of before have no retries: there an episode was tried again
    if it has more attempts than sub-goals.
    """
    if ATTEMPTS not in arm:
        return None
    again = np.array(arm[ATTEMPTS]) > max(1, arm["stages"])
    recovered = again & np.array(arm["success"], bool)
    return arm.get("reattempted", int(again.sum())), arm.get("recovered", int(recovered.sum()))


def _tried_again(names: tuple[str, ...], counters: np.ndarray) -> np.ndarray | None:
    """bool (E,); None where it is not counted."""
    if not set(RECOVERY_COUNTERS) <= set(names):
        return None
    return counters[:, names.index(RETRIES)] > 0
