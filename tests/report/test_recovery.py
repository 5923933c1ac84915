"""What is made of the counters of attempts and retries, and what of any others."""

import numpy as np
import pytest
from scipy.stats import binomtest

from wamrl.report import counter_metrics, recovered_in, recovery, recovery_line

NAMES = ("bumps", "attempts", "retries")
SUCCESS = np.array([1, 1, 0, 1, 0, 1], bool)
BUMPS = [9, 0, 0, 0, 0, 0]
ATTEMPTS = [1, 3, 2, 4, 0, 2]
RETRIES = [0, 1, 1, 2, 0, 0]
COUNTERS = np.array([BUMPS, ATTEMPTS, RETRIES]).T


def test_recovery_counts_successes_after_a_failed_attempt():
    out = recovery(NAMES, COUNTERS, SUCCESS)
    assert (out["reattempted"], out["recovered"]) == (3, 2)
    expected = binomtest(2, 3).proportion_ci(0.95, method="wilson")
    assert out["recovered95"] == pytest.approx([expected.low, expected.high])
    assert (out["attempts"], out["retries"]) == (ATTEMPTS, RETRIES)
    nobody = recovery(NAMES, np.array([[0, 1, 0]] * 6), SUCCESS)
    assert (nobody["reattempted"], nobody["recovered"], nobody["recovered95"]) == (0, 0, [0.0, 1.0])
    line = "3 tried again after a failed attempt, 2 of them succeeded"
    assert recovery_line(NAMES, COUNTERS, SUCCESS) == line


def test_nothing_is_said_where_attempts_are_not_counted():
    for names in ((), ("bumps",)):
        counters = COUNTERS[:, : len(names)]
        assert recovery(names, counters, SUCCESS) == {}
        assert recovery_line(names, counters, SUCCESS) == ""
    assert counter_metrics((), COUNTERS[:, :0], SUCCESS) == {}
    assert counter_metrics(("bumps",), COUNTERS[:, :1], SUCCESS) == {"rollout/counter/bumps": 1.5}


def test_every_counter_has_its_mean():
    metrics = counter_metrics(NAMES, COUNTERS, SUCCESS)
    assert metrics == pytest.approx(
        {
            "rollout/counter/bumps": 1.5,
            "rollout/counter/attempts": 2.0,
            "rollout/counter/retries": 4 / 6,
            "rollout/attempts": 2.0,
            "rollout/reattempted": 3 / 6,
            "rollout/recovered": 2 / 3,
        }
    )


def test_summaries_of_before_are_read():
    arm = {"attempts": [1, 2, 3, 2], "success": [1, 0, 1, 1], "stages": 1}
    assert recovered_in(arm) == (3, 2)
    assert recovered_in(arm | {"reattempted": 2, "recovered": 1}) == (2, 1)
    assert recovered_in({"success": [1], "stages": 1}) is None
