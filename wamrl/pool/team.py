"""The worker processes of a pool: who owns which slots,
the shared block, and the replacement of the lost.
"""

from __future__ import annotations

import pickle
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from wamrl.envs.base import EnvConfig, EnvSpec
from wamrl.pool.process import Process, WorkerLost, shut_down
from wamrl.pool.shared_memory import Layout, map_block, nameless_file

_BUILD_TIMEOUT_S = 300.0  # importing a simulator on a busy machine takes its time
_MAX_LOSSES = 5  # in a row, of one worker: then something is wrong for good


class Team:
    """Processes 0..W-1 with their shares of the slots;
    `arrays` is the shared block (see `Layout`).
    """

    def __init__(
        self,
        env: EnvConfig,
        *,
        kind: type,
        n_envs: int,
        n_workers: int,
        timeout_s: float,
        n_exec: int,
        **offsets: tuple[int, ...],
    ) -> None:
        """kind: of the workers, `process.Process` or what has its methods."""
        self._env = env
        self._kind = kind
        self._timeout_s = timeout_s
        self._losses = [0] * n_workers
        edges = [n_envs * i // n_workers for i in range(n_workers + 1)]
        self._shares = [range(lo, hi) for lo, hi in zip(edges[:-1], edges[1:], strict=True)]
        self._owner = [i for i, share in enumerate(self._shares) for _ in share]  # of each slot
        self._processes: list[Process] = []
        self._sent: deque[tuple[str, list[int]]] = deque()  # verb, workers; oldest first
        self.busy_s = 0.0  # seconds that workers spent on chunks and resets, summed over them
        self._memory = [nameless_file()]
        self._finalizer = weakref.finalize(self, shut_down, self._processes, self._memory)
        try:
            _check_portable(env)
            self._processes.extend(kind(self._memory[0], share) for share in self._shares)
            specs = self._build(range(n_workers))
            self.spec = specs[0]
            if any(spec != self.spec for spec in specs):
                raise ValueError(
                    f"{self.spec.name}: build() made a different spec in each worker: make it "
                    "deterministic"
                )
            self.layout = Layout(spec=self.spec, n_envs=n_envs, n_exec=n_exec, **offsets)
            self.arrays: dict[str, np.ndarray] = self.layout.views(
                map_block(self._memory[0], self.layout)
            )
            self._attach(range(n_workers))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    def send(self, verb: str, todo: dict[int, int | None]) -> None:
        """Tell every worker what is to do in its slots:
        begin an episode (the seed) or execute a chunk (None).

        `receive` once for each `send`, in order.
        """
        self._require_open()
        shares: list[list] = [[] for _ in self._shares]
        for slot, seed in todo.items():
            shares[self._owner[slot]].append((slot, seed))
        busy = [i for i, share in enumerate(shares) if share]
        for i in busy:
            self._processes[i].send((verb, shares[i]))
        self._sent.append((verb, busy))

    def receive(self) -> set[int]:
        """Wait for the answers to the oldest `send`;
        the slots of workers that were lost and replaced meanwhile.

        A lost worker takes all that was sent to it along: later answers are not waited for.
        """
        verb, busy = self._sent.popleft()
        answers = self._answers(
            lambda: self._kind.gather([self._processes[i] for i in busy], self._timeout_s)
        )
        gone: dict[int, WorkerLost] = {}
        for i, answer in zip(busy, answers, strict=True):
            if isinstance(answer, WorkerLost):
                gone[i] = answer
                self._losses[i] += 1
                continue
            self.busy_s += answer
            if verb == "step":  # a reset that works is no sign of health
                self._losses[i] = 0
        for i, loss in gone.items():
            if self._losses[i] == _MAX_LOSSES:
                self.close()
                raise RuntimeError(
                    f"{loss}, {_MAX_LOSSES} times in a row: look at its stderr and the free memory"
                )
        if not gone:
            return set()
        self._replace(gone)
        return {slot for i in gone for slot in self._shares[i]}

    def tell(self, verb: str, todo: dict[int, int | None]) -> set[int]:
        """`send` and `receive`, where nothing else is on its way."""
        assert not self._sent, "answers of an earlier message are on their way"
        self.send(verb, todo)
        return self.receive()

    def close(self) -> None:
        self._finalizer()
        self.arrays = {}

    def _replace(self, workers: Iterable[int]) -> None:
        for i in workers:
            self._processes[i].kill()
            self._processes[i] = self._kind(self._memory[0], self._shares[i])
        self._sent = deque(
            (verb, [i for i in busy if i not in workers]) for verb, busy in self._sent
        )
        self._build(list(workers))
        self._attach(list(workers))

    def _build(self, workers: Sequence[int]) -> list[EnvSpec]:
        return self._ask_all(workers, [("build", self._env, len(self._shares[i])) for i in workers])

    def _attach(self, workers: Sequence[int]) -> None:
        self._ask_all(workers, [("attach", self.layout, self._shares[i][0]) for i in workers])

    def _ask_all(self, workers: Sequence[int], messages: list[tuple]) -> list:
        """As `_ask`, where we cannot go on without an answer."""
        answers = self._ask(workers, messages, _BUILD_TIMEOUT_S)
        for answer in answers:
            if isinstance(answer, WorkerLost):
                self.close()
                raise RuntimeError(
                    f"{answer} while it built the environments: look at its stderr and the free "
                    "memory"
                )
        return answers

    def _ask(self, workers: Sequence[int], messages: list[tuple], timeout_s: float) -> list:
        """One answer per worker, possibly WorkerLost."""
        self._require_open()
        processes = [self._processes[i] for i in workers]
        for process, message in zip(processes, messages, strict=True):
            process.send(message)
        return self._answers(lambda: self._kind.gather(processes, timeout_s))

    def _answers(self, wait: Callable[[], list]) -> list:
        """What `wait` returns; an exception of an environment closes the team and is raised."""
        try:
            answers = wait()
            for answer in answers:
                if isinstance(answer, Exception) and not isinstance(answer, WorkerLost):
                    raise answer
        except BaseException:
            # also Ctrl-C: answers on their way would be taken for those of the next question
            self.close()
            raise
        return answers

    def _require_open(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("the pool is closed: build a new one")


def _check_portable(env: EnvConfig) -> None:
    if type(env).__module__ == "__main__":
        name = type(env).__name__
        raise ValueError(
            f"{name} is defined in the running script: put it into a module that workers can import"
        )
    try:
        pickle.dumps(env)
    except Exception as error:
        raise ValueError(
            f"the env config cannot travel to a worker: {error}; keep it plain data"
        ) from error
