"""Simulators on other machines: the workers of a pool as Ray actors,
for clusters (`pool.backend="ray"`).

Same messages and answers as a worker process, but nothing is shared: a chunk's actions
travel with its message, and the records of the shared block with its answer.
An actor that dies, with its node or alone, or does not answer in time is lost like a process, and
replaced where there is room. All nodes need this wamrl installed.
"""

from __future__ import annotations

import os
from collections import deque

import numpy as np

from wamrl.pool.shared_memory import NO_FILE, Layout
from wamrl.pool.worker import Worker
from wamrl.runtime.processes import WorkerLate, WorkerLost, answer

_WATCH = "watch"  # the concurrency group of who looks while the simulators are stepped
_LOOK_S = 5.0


def connect(address: str) -> None:
    """Join the cluster at `address`, "auto" being the one that this machine belongs to;
    ValueError if there is none.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(
            "pool.backend=ray needs Ray: pip install -e '.[ray]' in the clone of wamrl"
        ) from None
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False
        )
    except Exception as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r} ({type(error).__name__}): start one with `ray "
            "start --head`, or give pool.ray_address"
        ) from error


class _RemoteWorker:
    """What runs on the other machine: a worker with arrays of its own."""

    def __init__(self) -> None:
        os.environ.setdefault("MUJOCO_GL", "egl")
        self._worker = Worker(NO_FILE)

    def pid(self) -> int:
        return os.getpid()

    def answer(self, verb: str, *arguments: object) -> tuple[str, object]:
        """("ok", value) or ("error", exception)."""
        return answer(self, verb, *arguments)

    def build(self, *arguments: object) -> Layout:
        return self._worker.build(*arguments)

    def steps(self) -> np.ndarray:
        """Control steps and resets of every slot so far; asked while `answer` is at work."""
        return self._worker.block["steps"].copy()

    def run(self, todo: dict[int, int | None], actions: np.ndarray) -> tuple[float, np.ndarray]:
        """As `Worker.run`, after writing the slots' actions; seconds, and the slots' records."""
        block = self._worker.block
        slots = list(todo)
        block["actions"][slots] = actions
        seconds = self._worker.run(todo)
        return seconds, block[slots]


class RayWorker:
    """A remote worker, with the face of a `runtime.processes.WorkerProcess`."""

    def __init__(self, memory_fd: int) -> None:
        import ray

        # One core each, on as many machines as there are;
        # a node that is lost must not take the driver's retries along.
        make = ray.remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={_WATCH: 1},
        )(_RemoteWorker)
        self._ray = ray
        self._actor = make.remote()
        self._memory_fd = memory_fd
        self._awaited: deque[tuple] = deque()  # reference of the answer, slots that it writes

    @property
    def name(self) -> str:
        """For sentences; one that hangs cannot be asked for more."""
        return "a Ray worker"

    @property
    def pid(self) -> int:
        """On its own machine."""
        return self._ray.get(self._actor.pid.remote(), timeout=10.0)

    def cpu_s(self) -> float:
        """Not known from here: it has as long to build as one that does nothing."""
        return 0.0

    def send(self, verb: str, *arguments: object) -> None:
        """Ask; a dead actor is noticed by `receive`."""
        slots = []
        if verb == "run":
            slots = list(arguments[0])
            arguments = (*arguments, self._block["actions"][slots])
        self._awaited.append((self._actor.answer.remote(verb, *arguments), slots))

    def receive(self, timeout_s: float) -> object:
        """The oldest answer; raises what the worker raised, WorkerLost, or WorkerLate: then the
        block says how many steps it has made meanwhile.
        """
        reference, slots = self._awaited[0]
        try:
            kind, value = self._ray.get(reference, timeout=timeout_s)
        except self._ray.exceptions.GetTimeoutError:
            self._look(slots)
            raise WorkerLate(f"a Ray worker did not answer within {timeout_s:g} s") from None
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"a Ray worker died ({type(error).__name__})") from error
        self._awaited.popleft()
        if kind == "error":
            raise value
        if isinstance(value, Layout):
            self._block = value.map_block(self._memory_fd)
            return value
        seconds, self._block[slots] = value
        return seconds

    def _look(self, slots: list[int]) -> None:
        if not slots:  # it builds
            return
        try:
            asked = self._actor.steps.options(concurrency_group=_WATCH).remote()
            self._block["steps"][slots] = self._ray.get(asked, timeout=_LOOK_S)[slots]
        except self._ray.exceptions.RayError:  # it dies, or its machine is away: no progress
            return

    def dismiss(self) -> None:
        """Its environments end with it."""

    def end(self, patience_s: float = 0.0) -> None:
        if self._ray.is_initialized():
            self._ray.kill(self._actor, no_restart=True)
