"""The pool's side of one worker process: start, send, receive, stop."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from socket import socketpair

# A plain interpreter rather than multiprocessing's "spawn": that one runs the caller's script again in every worker
# (imports torch, needs an `if __name__ == "__main__"` guard) and takes the thread limits only from our own os.environ.
_COMMAND = "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from wamrl.envs.workers_child import main; "
_COMMAND += "main(int(sys.argv[1]), int(sys.argv[2]))"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GOODBYE_S = 3.0  # seconds that a worker gets to close its environments


class WorkerLost(Exception):
    """The process died or did not answer in time."""


class Process:
    """A running worker. It exits by itself when the pipe closes, so it cannot outlive us."""

    def __init__(self, memory_fd: int) -> None:
        ours, theirs = socketpair()
        os.set_inheritable(theirs.fileno(), True)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno()), str(memory_fd), json.dumps(sys.path)],
                pass_fds=(theirs.fileno(), memory_fd),
                stdin=subprocess.DEVNULL,
                env={"MUJOCO_GL": "egl", **os.environ, **_ONE_THREAD},
            )
        self.pipe = Connection(ours.detach())

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, message: tuple | None) -> None:
        """Send; a dead worker is noticed by `receive`."""
        try:
            self.pipe.send(message)
        except OSError:
            pass

    def receive(self):
        """The answer that has arrived; raises what the worker raised, or WorkerLost."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost(f"worker {self.pid} died") from error
        if kind == "error":
            raise value
        return value

    @staticmethod
    def gather(processes: Sequence[Process], timeout_s: float) -> list:
        """The next answer of each; one may be an exception (WorkerLost, or the worker's own)."""
        waiting, poll = {process.pipe.fileno(): process for process in processes}, select.poll()
        for file in waiting:
            poll.register(file, select.POLLIN)  # a closed pipe counts as ready, too
        answers: dict[Process, object] = {}
        deadline = time.monotonic() + timeout_s
        while waiting:
            ready = poll.poll(max(0.0, 1e3 * (deadline - time.monotonic())))
            if not ready:
                for process in waiting.values():
                    answers[process] = WorkerLost(f"worker {process.pid} did not answer for {timeout_s:g} s")
                break
            for file, _ in ready:
                poll.unregister(file)
                process = waiting.pop(file)
                try:
                    answers[process] = process.receive()
                except Exception as error:  # told to the caller, in place
                    answers[process] = error
        return [answers[process] for process in processes]

    def join(self, seconds: float) -> None:
        """Wait for its end, but not for longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self.pipe.close()


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
