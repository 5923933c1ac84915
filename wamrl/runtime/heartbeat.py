"""Signs of progress of all ranks, so that whoever waits can tell a slow rank from one that hangs.

Work that may take long calls `tick` at every step: a chunk of control steps, a step of an
optimiser. A thread tells the other ranks once a second how many there were. A rank that does not
come to where the others wait, and has not ticked for `LIMIT` seconds, hangs.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch.distributed as td

LIMIT = "WAMRL_RANK_TIMEOUT_S"  # an environment variable
_LIMIT_S = 3600.0  # its default: the largest models take long to score and to save
_EVERY_S = 1.0

_arrivals = 0  # at collectives
_ticks = 0
_watch: _Watch | None = None


class Hung(RuntimeError):
    """A rank makes no progress."""


def tick() -> None:
    """This rank has made progress."""
    global _ticks
    _ticks += 1


def arrived() -> None:
    """This rank has come to a collective."""
    global _arrivals
    _arrivals += 1


def limit_s() -> float:
    """Seconds without progress after which a rank hangs; ValueError if the setting is none."""
    text = os.environ.get(LIMIT, str(_LIMIT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{LIMIT}={text} is not possible: give seconds, more than 0")
    return seconds


def begin(store: td.Store, rank: int, world_size: int) -> None:
    """Start telling the other ranks of our progress."""
    import torch.distributed as td  # here: whoever only ticks needs no torch

    global _watch, _arrivals
    _arrivals = 0  # as on the other ranks
    _watch = _Watch(td.PrefixStore("heartbeat", store), rank, world_size, limit_s())


def end() -> None:
    """Stop it."""
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None


def look() -> None:
    """Called while we wait, now and then: `Hung` with one sentence that names the rank that we wait
    for, if it makes no progress.
    """
    if _watch is not None:
        _watch.look()


class _Watch:
    def __init__(self, store: td.Store, rank: int, world_size: int, limit: float) -> None:
        self._store = store
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._limit = limit
        self._seen: dict[int, tuple[str, float]] = {}  # what each said, and since when it says so
        self._ended = threading.Event()
        self._tell()
        self._thread = threading.Thread(target=self._go_on_telling, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        now = time.monotonic()
        for other in self._others:
            said = self._store.get(str(other)).decode()
            before, since = self._seen.get(other, ("", now))
            if said != before:
                self._seen[other] = (said, now)
            elif int(said.split()[0]) < _arrivals and now - since > self._limit:
                raise Hung(
                    f"rank {other} of this run hangs: it has made no progress for "
                    f"{now - since:.0f} s ({LIMIT}={self._limit:g}); go on with --resume"
                )

    def _tell(self) -> str:
        said = f"{_arrivals} {_ticks}"
        self._store.set(str(self._rank), said)
        return said

    def _go_on_telling(self) -> None:
        said = ""
        while not self._ended.wait(_EVERY_S):
            if said != f"{_arrivals} {_ticks}":
                try:
                    said = self._tell()
                except RuntimeError:  # the store has ended with the first rank
                    return
