"""Simulators on other machines: the workers of a pool as Ray actors,
for clusters (`vector.backend="ray"`).

Same messages and answers as `process.Process`, but nothing is shared: a chunk's actions
travel with its message, and the rows of the shared block with its answer, whole chunks at a time.
An actor that dies, with its node or alone, or does not answer in time is lost like a process, and
replaced where there is room. All nodes need this wamrl installed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

import numpy as np

from wamrl.pool.process import WorkerLost
from wamrl.pool.shared_memory import Layout, map_block
from wamrl.pool.worker import Worker, answer_to

_GOODBYE_S = 3.0


def connect(address: str) -> None:
    """Join the cluster at `address`, "auto" being the one that this machine belongs to;
    ValueError if there is none.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("vector.backend=ray needs Ray: pip install 'wamrl[ray]'") from None
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False
        )
    except Exception as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r} ({type(error).__name__}): start one with `ray "
            "start --head`, or "
            "give vector.ray_address"
        ) from error


class _Remote:
    """What runs on the other machine: a worker with arrays of its own."""

    def __init__(self) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        self._worker = Worker()

    def pid(self) -> int:
        return os.getpid()

    def ask(self, verb: str, *rest) -> tuple:
        """("ok", value) or ("error", exception)."""
        if verb == "attach":
            layout, first, count = rest
            self._arrays = layout.local(count)
            self._first = first
            rest = (layout, first, self._arrays)
        return answer_to(self._worker, (verb, *rest))

    def chunk(self, verb: str, items: list[tuple], actions: np.ndarray) -> tuple:
        """As `ask`, for "step" and "reset";
        the value is (seconds, rows of every array for the slots of `items`).
        """
        rows = [slot - self._first for slot, _ in items]
        self._arrays["actions"][rows] = actions
        kind, value = answer_to(self._worker, (verb, items))
        if kind == "error":
            return kind, value
        return kind, (
            value,
            {name: array[rows] for name, array in self._arrays.items() if name != "actions"},
        )


class RayProcess:
    """A remote worker, with the face of a `process.Process`."""

    def __init__(self, memory_fd: int, slots: range) -> None:
        import ray

        # One core each, on as many machines as there are;
        # a node that is lost must not take the driver's retries along.
        make = ray.remote(
            num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(_Remote)
        self._ray = ray
        self._actor = make.remote()
        self._memory_fd = memory_fd
        self._sent: deque[tuple] = deque()  # reference of the answer, slots
        self._count = len(slots)
        self._pid = 0

    @property
    def pid(self) -> int:
        """On its own machine; 0 if it does not answer."""
        if not self._pid:
            try:
                self._pid = self._ray.get(self._actor.pid.remote(), timeout=_GOODBYE_S)
            except Exception:  # dead or busy: only asked for messages and tests
                return 0
        return self._pid

    def send(self, message: tuple | None) -> None:
        """Send; a dead actor is noticed by `receive`."""
        if message is None:
            return
        verb, *rest = message
        if verb in ("step", "reset"):
            (items,) = rest
            slots = [slot for slot, _ in items]
            self._sent.append(
                (self._actor.chunk.remote(verb, items, self._arrays["actions"][slots]), slots)
            )
            return
        if verb == "attach":
            layout: Layout = rest[0]
            self._arrays = layout.views(map_block(self._memory_fd, layout))
            rest = [*rest, self._count]
        self._sent.append((self._actor.ask.remote(verb, *rest), []))

    def receive(self):
        """The oldest answer; raises what the worker raised, or WorkerLost."""
        reference, slots = self._sent.popleft()
        try:
            kind, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"a Ray worker died ({type(error).__name__})") from error
        if kind == "error":
            raise value
        if not slots:
            return value
        seconds, rows = value
        for name, part in rows.items():
            self._arrays[name][slots] = part
        return seconds

    @staticmethod
    def gather(processes: Sequence[RayProcess], timeout_s: float) -> list:
        """The next answer of each; one may be an exception (WorkerLost, or the worker's own)."""
        waiting = [process._sent[0][0] for process in processes]
        ready = (
            set(processes[0]._ray.wait(waiting, num_returns=len(waiting), timeout=timeout_s)[0])
            if waiting
            else ()
        )
        answers = []
        for process, reference in zip(processes, waiting, strict=True):
            try:
                if reference not in ready:
                    raise WorkerLost(f"a Ray worker did not answer for {timeout_s:g} s")
                answers.append(process.receive())
            except Exception as error:  # told to the caller, in place
                answers.append(error)
        return answers

    def join(self, seconds: float) -> None:
        """Its environments end with it."""

    def kill(self) -> None:
        self._sent.clear()
        if self._ray.is_initialized():
            self._ray.kill(self._actor, no_restart=True)
