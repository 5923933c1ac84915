"""Processes that a test has started, and their end."""

import time
from pathlib import Path


def wait_for_end(pids, seconds: float = 30.0) -> None:
    """AssertionError if one of them still runs then; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.1)


def runs(pid) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
