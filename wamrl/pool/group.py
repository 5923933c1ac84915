"""The workers of a pool: who owns which slots, their shared block, the replacement of the lost."""

from __future__ import annotations

import os
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from wamrl.envs.base import EnvConfig
from wamrl.pool.shared_memory import nameless_file
from wamrl.runtime import heartbeat
from wamrl.runtime.log import console
from wamrl.runtime.processes import WorkerLate, WorkerLost, WorkerProcess, stop

# Importing a simulator takes minutes on a busy machine: what counts is whether it is at it.
_IDLE_BUILD_S = 300.0  # with less than _AT_WORK of a processor, a worker that builds hangs
_AT_WORK = 1 / 300
_BUILD_AT_MOST_S = 3600.0
_LOOKS = 4  # within a time limit
_MAX_LOSSES = 5  # in a row, of one worker: then something is wrong for good
# (worker's number, the worker then, does it execute chunks?) for each that is sent to
Order = list[tuple[int, WorkerProcess, bool]]


class WorkerGroup:
    """Workers 0..W-1 with their shares of the slots; `block` is the memory that they share."""

    def __init__(
        self,
        env: EnvConfig,
        *,
        start: Callable[[int], WorkerProcess],
        n_workers: int,
        timeout_s: float,
        sizes: dict[str, object],
    ) -> None:
        """start: a worker, given the shared memory's descriptor; sizes: for `Layout`."""
        self._env = env
        self._start = start
        self._timeout_s = timeout_s
        self._sizes = sizes
        n_envs = sizes["n_envs"]
        edges = [n_envs * i // n_workers for i in range(n_workers + 1)]
        self._shares = [range(low, high) for low, high in pairwise(edges)]
        self._owner = [i for i, share in enumerate(self._shares) for _ in share]  # of each slot
        # int64 (B,): how often the worker of a slot has been replaced
        self.replaced = np.zeros(n_envs, np.int64)
        self._losses = [0] * n_workers  # since the last chunk that went well
        self.busy_s = 0.0  # seconds that workers spent on orders, summed over them
        self._memory = nameless_file()
        self._workers: list[WorkerProcess] = []
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, self._memory)
        try:
            self._workers.extend(start(self._memory) for _ in self._shares)
            self._build(range(n_workers))
            self.block = self.layout.map_block(self._memory)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._workers)

    def send(self, todo: dict[int, int | None]) -> Order:
        """Begin an episode from the seed in some slots, execute a chunk (None) in others;
        `receive` every order, the oldest first.
        """
        shares: dict[int, dict[int, int | None]] = defaultdict(dict)
        for slot, seed in todo.items():
            shares[self._owner[slot]][slot] = seed
        for i, share in shares.items():
            self._workers[i].send("run", share)
        return [(i, self._workers[i], None in share.values()) for i, share in shares.items()]

    def receive(self, order: Order) -> None:
        """Wait until it is done, or the workers that it was sent to are lost and replaced.

        A lost worker takes all that was sent to it along: later answers are not waited for.
        """
        begin = time.monotonic()
        before = [self._steps(i) for i in range(len(self._workers))]
        try:
            for i, worker, steps in order:
                if worker is self._workers[i]:  # not replaced meanwhile
                    self._finish(i, steps, begin, before[i])
        except BaseException:
            # Also Ctrl-C: answers on their way would be taken for those of the next order.
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers and free the memory."""
        self._finalizer()
        self.block = None

    def require_open(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("the pool is closed: build a new one")

    def _finish(self, i: int, steps: bool, begin: float, before: int) -> None:
        """Worker i's part of an order that is waited for since `begin`, when it had made `before`
        steps; steps: it executes chunks.
        """
        try:
            self.busy_s += self._answer(i, begin, before)
        except WorkerLost as loss:
            self._losses[i] += 1
            if self._losses[i] == _MAX_LOSSES:
                raise RuntimeError(
                    f"{loss}, {_MAX_LOSSES} times in a row: look at its stderr and the free memory"
                ) from loss
            console.print(f"{loss}: it is replaced, its episodes are lost", markup=False)
            self._replace(i)
        else:
            if steps:  # an episode that begins is no sign of health
                self._losses[i] = 0

    def _answer(self, i: int, since: float, steps: int) -> float:
        """Wait as long as the worker makes steps; seconds that it took. since, steps: when it had
        made how many.
        """
        worker = self._workers[i]
        while True:
            try:
                # whoever has answered in time is heard, even after one that has not
                return worker.receive(self._timeout_s / _LOOKS)
            except WorkerLate:
                now = time.monotonic()
                if self._steps(i) != steps:
                    steps = self._steps(i)
                    since = now
                    heartbeat.tick()
                elif now - since >= self._timeout_s:
                    slow = f"no control step for {self._timeout_s:g} s (pool.timeout_s)"
                    raise WorkerLost(f"{worker.name} hangs: {slow}") from None

    def _steps(self, i: int) -> int:
        """Control steps and resets of worker i so far."""
        share = self._shares[i]
        return int(self.block["steps"][share.start : share.stop].sum())

    def _replace(self, i: int) -> None:
        self._workers[i].end()
        self._workers[i] = self._start(self._memory)
        self._build([i])
        self.replaced[self._shares[i]] += 1

    def _build(self, indices: Sequence[int]) -> None:
        for i in indices:
            self._workers[i].send("build", self._env, self._shares[i], self._sizes)
        try:
            layouts = [_built(self._workers[i]) for i in indices]
        except WorkerLost as loss:
            raise RuntimeError(
                f"{loss} while it built the environments: look at its stderr and the free memory"
            ) from loss
        self.layout = layouts[0]
        if any(layout != self.layout for layout in layouts):
            name = self.layout.spec.name
            raise ValueError(f"{name}: build() makes different specs: make it deterministic")


def _built(worker: WorkerProcess) -> object:
    """Its answer, waited for as long as it is seen to work; WorkerLost."""
    begin = since = time.monotonic()
    used = worker.cpu_s()
    while True:
        try:
            return worker.receive(_IDLE_BUILD_S / _LOOKS)
        except WorkerLate:
            now = time.monotonic()
            if worker.cpu_s() - used > _AT_WORK * _IDLE_BUILD_S:
                used = worker.cpu_s()
                since = now
                heartbeat.tick()
            if now - since >= _IDLE_BUILD_S or now - begin >= _BUILD_AT_MOST_S:
                raise WorkerLost(
                    f"{worker.name} hangs: idle for {now - since:.0f} of {now - begin:.0f} s"
                ) from None


def _shut_down(workers: list[WorkerProcess], memory_fd: int) -> None:
    stop(workers)
    os.close(memory_fd)
