"""Processes that a test has started, and their end."""

import time
from collections.abc import Callable
from pathlib import Path


def until(ready: Callable[[], object], seconds: float = 60.0, why: str = "") -> None:
    """Wait until `ready()` is true; AssertionError if it is not by then."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, why or "it did not happen"
        time.sleep(0.02)


def wait_for_end(pids, seconds: float = 30.0) -> None:
    """AssertionError if one of them still runs then; a zombie has ended."""
    until(lambda: not any(map(runs, pids)), seconds, f"one of {list(pids)} is still there")


def runs(pid) -> bool:
    """Is there a process of this number that has not ended?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def written(path: Path) -> str:
    """What a process has written to a file, once it is there."""
    until(lambda: path.exists() and path.read_text(), why=f"{path} is not there")
    return path.read_text()
