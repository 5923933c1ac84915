"""Orders to one worker process, and word that they are done, without messages.
No torch here: the workers import this.

Both sides count the orders in shared memory and ring a bell (an eventfd) for the other, who may
sleep. To wake a sleeper takes tens of microseconds, more than a cheap chunk itself. So whoever
waits looks at the count for a while, and offers his core to other processes after each look; but
only where that has lately been worth it (`Patience`).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import platform
import time
from collections.abc import Callable

from wamrl.pool.shared_memory import nameless_file

# the longest time of looking; what a cheap chunk of 16 slots takes (LOG.md, 2026-11-26)
SPIN_S = 200e-6
_MOST_PENALTY = 1024
_LINE = 8  # words of 8 bytes in a cache line; each side counts in a line of its own
_ORDERS = 2 * _LINE  # where the orders begin: per slot, the number of its latest one and what to do
_STEP = -1  # in the place of a seed
# x86 shows one core's stores to the others in their order: who sees a count sees what was written
# before it. Elsewhere nobody says so, and the bell itself is read: a system call, dearer than a
# look, whose locks do promise that order.
_IN_ORDER = platform.machine() in ("x86_64", "AMD64")


class Count:
    """A number that one process raises and another one waits for.
    Every step of it rings `bell` once.
    """

    def __init__(self, words: memoryview, place: int, bell: int) -> None:
        self._words = words
        self._place = place
        self.bell = bell
        self._heard = 0

    def advance(self) -> None:
        """By one. What belongs to the new number has been written before."""
        self._words[self._place] += 1
        os.eventfd_write(self.bell, 1)

    def reached(self, number: int) -> bool:
        return (self._words[self._place] if _IN_ORDER else self.listen()) >= number

    def listen(self) -> int:
        """The number as far as the bell has told it; and the bell is still until the next step."""
        with contextlib.suppress(BlockingIOError):
            self._heard += os.eventfd_read(self.bell)
        return self._heard


class Mailbox:
    """The orders of one worker, to which the slots first, ..., first + count - 1 belong."""

    def __init__(self, first: int, count: int, memory_fd: int, asked_fd: int, done_fd: int) -> None:
        size = 8 * (_ORDERS + 2 * count)
        os.ftruncate(memory_fd, size)
        self._words = memoryview(mmap.mmap(memory_fd, size)).cast("q")
        os.close(memory_fd)
        self._first = first
        self.asked, self.done = Count(self._words, 0, asked_fd), Count(self._words, _LINE, done_fd)

    def order(self, number: int, items: list[tuple[int, int | None]]) -> None:
        """The pool's side: (slot, seed of a new episode, or None for a chunk).
        No slot is in two orders at a time.
        """
        for slot, seed in items:
            place = _ORDERS + 2 * (slot - self._first)
            self._words[place] = number
            self._words[place + 1] = _STEP if seed is None else seed
        self.asked.advance()

    def read(self, number: int) -> list[tuple[int, int | None]]:
        """The worker's side: the items of an order.
        A later one may be being written beside it, to other slots.
        """
        words = self._words[_ORDERS:].tolist()
        rows = enumerate(zip(words[::2], words[1::2], strict=True), start=self._first)
        return [
            (slot, None if todo == _STEP else todo) for slot, (of, todo) in rows if of == number
        ]

    def finish(self, seconds: float) -> None:
        """The worker's side: the oldest order is done, and took so long."""
        self._words[_LINE + 1] += round(1e9 * seconds)
        self.done.advance()

    @property
    def busy_s(self) -> float:
        """What the finished orders took, all together."""
        return 1e-9 * self._words[_LINE + 1]


def make_files() -> tuple[int, int, int]:
    """Memory and two bells for a `Mailbox`.
    The memory's descriptor is closed by it, the bells by whoever made them.
    """
    return nameless_file(), os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)


class Patience:
    """How one side waits: by looking again and again for SPIN_S at most,
    then asleep; or asleep at once.

    Where a look was in vain, the next waits, twice as many each time, must be short ones before the
    next look: a core that is offered to a busy process comes back milliseconds later. So looking
    all but stops where waits are long or processes are more than cores, and goes on where a
    thousand waits in a row are short.
    """

    def __init__(self) -> None:
        # short waits until the next look; and after the next one that is in vain
        self._rest = 1
        self._penalty = 1

    def wait(self, there: Callable[[], bool], sleep: Callable[[], None]) -> None:
        """Return when it is there, or from `sleep`."""
        end = time.perf_counter() + SPIN_S
        looks = self._rest == 0
        found = False
        while looks and not (found := there()) and time.perf_counter() < end:
            os.sched_yield()
        if not found:
            sleep()
        short = time.perf_counter() < end
        if looks and not short:
            self._rest, self._penalty = self._penalty, min(2 * self._penalty, _MOST_PENALTY)
        elif looks:
            self._penalty = max(1, self._penalty - 1)
        elif short:
            self._rest -= 1
