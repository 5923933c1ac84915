"""The pool's side of one worker process: start, send, receive, stop.

Chunks and resets go through a `Mailbox`, all else and every exception through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection
from socket import socketpair

from wamrl.pool.order_queue import Mailbox, Patience, make_files

# A plain interpreter rather than multiprocessing's "spawn": that one runs the caller's script again
# in every worker (imports torch, needs an `if __name__ == "__main__"` guard) and takes the thread
# limits only from our own os.environ.
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from wamrl.pool.worker import main; "
)
_COMMAND += "main(*map(int, sys.argv[1:3]), json.loads(sys.argv[4]))"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GOODBYE_S = 3.0  # seconds that a worker gets to close its environments


class WorkerLost(Exception):
    """The process died or did not answer in time."""


class Process:
    """A running worker. It exits by itself when the pipe closes, so it cannot outlive us."""

    def __init__(self, memory_fd: int, slots: range) -> None:
        """slots: those that belong to it."""
        ours, theirs = socketpair()
        box_fd, *bells = make_files()
        files = (theirs.fileno(), memory_fd, box_fd, *bells)
        with theirs:
            self._popen = subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-c",
                        _COMMAND,
                        str(theirs.fileno()),
                        str(memory_fd),
                        json.dumps(sys.path),
                    ),
                    json.dumps([slots.start, len(slots), box_fd, *bells]),
                ],
                pass_fds=files,
                stdin=subprocess.DEVNULL,
                env={"MUJOCO_GL": "egl", **os.environ, **_ONE_THREAD},
            )
        self.pipe = Connection(ours.detach())
        self._bells = bells
        self._box = Mailbox(slots.start, len(slots), box_fd, *bells)
        self._orders = 0
        self._busy_s = 0.0
        # the answers that are due: the number of an order, 0 for one by the pipe
        self._awaited: deque[int] = deque()
        self._patience = Patience()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, message: tuple | None) -> None:
        """Send; a dead worker is noticed by `gather`."""
        if message is not None and message[0] in ("step", "reset"):
            self._orders += 1
            self._awaited.append(self._orders)
            self._box.order(self._orders, message[1])
            return
        self._awaited.append(0)
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    @staticmethod
    def gather(processes: Sequence[Process], timeout_s: float) -> list:
        """The next answer of each; one may be an exception (WorkerLost, or the worker's own)."""
        deadline = time.monotonic() + timeout_s
        silent = []
        if not _all_done(processes):  # one patience for all: they are waited for together
            wait = processes[0]._patience.wait
            wait(lambda: _all_done(processes), lambda: silent.extend(_sleep(processes, deadline)))
        lost = {
            process: WorkerLost(f"worker {process.pid} did not answer for {timeout_s:g} s")
            for process in silent
        }
        return [lost.get(process) or process._take() for process in processes]

    def _is_done(self) -> bool:
        number = self._awaited[0]
        return number > 0 and self._box.done.reached(number)

    def _take(self) -> object:
        """The answer that has arrived: seconds of work for an order,
        or what the worker sent, exceptions included.
        """
        done = self._is_done()
        self._awaited.popleft()
        if done:
            before = self._busy_s
            self._busy_s = self._box.busy_s
            return self._busy_s - before
        try:
            return self.pipe.recv()[1]
        except (EOFError, OSError):
            return WorkerLost(f"worker {self.pid} died")
        except Exception as error:  # of unpickling it
            return error

    def join(self, seconds: float) -> None:
        """Wait for its end, but not for longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self.pipe.close()
        while self._bells:
            os.close(self._bells.pop())


def _all_done(processes: Sequence[Process]) -> bool:
    for process in processes:
        if not process._is_done():
            return False
    return True


def _sleep(processes: Sequence[Process], deadline: float) -> list[Process]:
    """Wait until each has an answer for `_take`,
    at most until `deadline` (monotonic); those that have none.
    """
    late = [process for process in processes if not process._is_done()]
    poll = select.poll()
    owner = {
        fd: process for process in late for fd in (process.pipe.fileno(), process._box.done.bell)
    }
    for fd in owner:
        poll.register(fd, select.POLLIN)  # a closed pipe counts as ready, too
    while late:
        ready = poll.poll(max(0.0, 1e3 * (deadline - time.monotonic())))
        if not ready:
            break
        spoken = []
        for fd, _ in ready:
            if fd == owner[fd].pipe.fileno():
                spoken.append(owner[fd])
                poll.unregister(fd)
            else:
                owner[fd]._box.done.listen()
        late = [process for process in late if process not in spoken and not process._is_done()]
    return late


def shut_down(processes: list[Process], memory_fds: list[int]) -> None:
    """Stop all workers and free the memory; safe to call twice, and at interpreter exit."""
    for process in processes:
        process.send(None)
    deadline = time.monotonic() + _GOODBYE_S
    for process in processes:
        process.join(max(0.01, deadline - time.monotonic()))
        process.kill()
    processes.clear()
    while memory_fds:
        os.close(memory_fds.pop())
