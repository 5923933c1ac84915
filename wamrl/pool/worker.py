"""What runs in a worker process: build some environments,
then execute chunks until the pipe closes. No torch here.

Messages from the pool, and the answers; every answer is ("ok", value) or ("error", exception):
    ("build", env_config, count)     -> EnvSpec
    ("attach", layout, first_slot)   -> None          maps the shared block
    ("reset", [(slot, seed), ...])   -> float         a new episode in each slot; seconds it took
    ("step", [(slot, seed or None), ...]) -> float    the same, or one chunk where there is no seed
    None                             -> the worker closes its environments and exits
Between processes of one machine, "reset" and "step" and their answers go through a `Mailbox`,
exceptions excepted.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
import traceback
from bisect import bisect_right
from collections import deque
from multiprocessing.connection import Connection

import numpy as np

from wamrl.envs.base import Env, EnvConfig, EnvSpec
from wamrl.pool.order_queue import Count, Mailbox, Patience
from wamrl.pool.shared_memory import PACK_FACTS, Layout, map_block


def main(pipe_fd: int, memory_fd: int, mailbox: list[int]) -> None:
    """Serve the pool at the other end of the pipe and of
    the mailbox (what `Mailbox` is made of).
    """
    # Ctrl-C reaches the whole group; the pool decides what ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(pipe_fd)
    box = Mailbox(*mailbox)
    threading.Thread(target=_end_with, args=(pipe_fd,), daemon=True).start()
    worker = Worker()
    inbox = _Inbox(pipe, box.asked)
    number = 1
    while True:
        if inbox.wait(number):
            kind, value = answer_to(worker, ("step", box.read(number)))
            if kind == "ok":
                box.finish(value)
                number += 1
                continue
            pipe.send((kind, value))
            number = math.inf  # a bug was found: only the pool's goodbye is left to wait for
        elif (message := _receive(pipe)) is not None:
            if message[0] == "attach":
                _, layout, first = message
                arrays = layout.views(map_block(memory_fd, layout))
                message = (
                    "attach",
                    layout,
                    first,
                    {k: v[first : first + worker.count] for k, v in arrays.items()},
                )
            pipe.send(answer_to(worker, message))
        else:
            break
    worker.close()


class _Inbox:
    """Where the pool is heard: the mailbox and the pipe."""

    def __init__(self, pipe: Connection, asked: Count) -> None:
        self._asked = asked
        self._patience = Patience()
        self._poll = select.poll()
        self._poll.register(pipe.fileno(), select.POLLIN)
        self._poll.register(asked.bell, select.POLLIN)

    def wait(self, number: float) -> bool:
        """True as soon as order `number` is there, False when a message is."""
        if not self._asked.reached(number):
            self._patience.wait(lambda: self._asked.reached(number), lambda: self._sleep(number))
        return self._asked.reached(number)

    def _sleep(self, number: float) -> None:
        while not self._asked.reached(number):
            ready = [fd for fd, _ in self._poll.poll()]
            if self._asked.bell not in ready:
                return
            self._asked.listen()


def answer_to(worker: Worker, message: tuple) -> tuple:
    """What the worker's method returns, or what it raises, for the pool."""
    try:
        return "ok", getattr(worker, message[0])(*message[1:])
    except Exception as error:  # shown to the user by the pool
        return "error", _portable(error)


def _receive(pipe: Connection) -> tuple | None:
    while True:
        try:
            return pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        except Exception as error:  # the message came, but does not unpickle
            pipe.send(
                ("error", ValueError(f"the worker cannot load the environment's config: {error}"))
            )


def _end_with(pipe_fd: int) -> None:
    """Exit when the other end closes; a thread of its own,
    so that a worker busy in a simulator notices, too.
    """
    hangup = select.poll()
    # woken by that alone, never by a message: a message costs one wake-up
    hangup.register(pipe_fd, 0)
    hangup.poll()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """As a class that the pool can unpickle:
    ValueError keeps its one sentence, a bug gets its traceback.
    """
    if isinstance(error, ValueError):
        return ValueError(str(error))
    return RuntimeError(
        f"an environment failed with {type(error).__name__}: {error}\n{traceback.format_exc()}"
    )


class Worker:
    """The environments of the slots first, first + 1, ..."""

    def __init__(self) -> None:
        self._envs: list[Env] = []

    @property
    def count(self) -> int:
        return len(self._envs)

    def build(self, config: EnvConfig, count: int) -> EnvSpec:
        self._envs = [config.build() for _ in range(count)]
        return self._envs[0].spec

    def attach(self, layout: Layout, first: int, arrays: dict[str, np.ndarray]) -> None:
        """arrays: those of `layout`, with the rows of our slots only."""
        self._slots = {
            first + i: _Slot(env, layout, {k: v[i] for k, v in arrays.items()})
            for i, env in enumerate(self._envs)
        }

    def reset(self, items: list[tuple[int, int]]) -> float:
        return self.step(items)

    def step(self, items: list[tuple[int, int | None]]) -> float:
        begin = time.perf_counter()
        for slot, seed in items:
            if seed is None:
                self._slots[slot].step()
            else:
                self._slots[slot].reset(seed)
        return time.perf_counter() - begin

    def close(self) -> None:
        for env in self._envs:
            env.close()


class _Slot:
    """One environment and its rows of the shared block."""

    def __init__(self, env: Env, layout: Layout, row: dict[str, np.ndarray]) -> None:
        self._env = env
        self._offsets = layout.frame_offsets
        self._name = env.spec.name
        self._actions = row["actions"]
        self._facts = row["facts"]
        self._counters = row["counters"]
        self._frames = row["frames"]
        self._obs_frames = row["obs_frames"]
        self._obs_proprio = row["obs_proprio"]
        steps = range(layout.n_exec + 1)
        back = layout.history_offsets
        horizon = env.spec.horizon
        self._place = {offset: place for place, offset in enumerate(layout.frame_offsets)}
        # Control steps of a chunk after which somebody looks, now or,
        # from the end of this or a later chunk, back.
        self._seen = [
            k in self._place or any((k - h) % layout.n_exec == 0 for h in back) for k in steps
        ]
        # and those of the episode that its end looks back to
        self._late = {horizon + h for h in back}
        self._back = back[:-1]  # the last one is 0, now
        # (control step of the episode, frame), ascending
        self._past: deque[tuple[int, np.ndarray]] = deque()
        self._age = 0  # control steps of the episode so far

    def reset(self, seed: int) -> None:
        self._env.reset(seed)
        self._age = 0
        self._past.clear()
        self._write_obs(self._render())

    def step(self) -> None:
        """Execute one chunk, up to the end of the episode."""
        env = self._env
        seen = self._seen
        late = self._late
        age = self._age
        success = False
        for k, action in enumerate(self._actions.copy(), start=1):
            result = env.step(action)
            age += 1
            success = success or result.success
            end = result.terminated or result.truncated
            if end or seen[k] or age in late:
                self._age = age
                frame = self._render()
                if k in self._place:
                    self._frames[self._place[k]] = frame
            if end:
                # an earlier chunk may have got there
                self._frames[bisect_right(self._offsets, k) :] = 0
                break
        ends = bool(success), bool(result.terminated), bool(result.truncated)
        PACK_FACTS(self._facts, 0, k, result.stages, *ends)
        if len(result.counters) != len(self._counters):
            raise ValueError(
                f"{self._name}: step() returned {len(result.counters)} counters but its spec names "
                f"{len(self._counters)}: mend the env"
            )
        self._counters[:] = result.counters
        self._write_obs(frame)

    def _write_obs(self, frame: np.ndarray) -> None:
        """frame: the present one."""
        self._obs_frames[-1] = frame
        self._obs_proprio[:] = self._checked(self._env.proprio(), self._obs_proprio, "proprio()")
        if not self._back:
            return
        past = self._past
        oldest = self._age + self._back[0]
        while len(past) > 1 and past[1][0] <= oldest:
            past.popleft()
        for place, offset in enumerate(self._back):
            earlier = [frame for age, frame in past if age <= self._age + offset]
            self._obs_frames[place] = earlier[-1] if earlier else past[0][1]

    def _render(self) -> np.ndarray:
        """The present frame, until the environment goes on;
        remembered, if somebody will look back.
        """
        frame = self._checked(self._env.render(), self._obs_frames[0], "render()")
        if self._back:
            self._past.append((self._age, frame.copy()))
        return frame

    def _checked(self, array: np.ndarray, like: np.ndarray, what: str) -> np.ndarray:
        if array.shape != like.shape or array.dtype != like.dtype:
            found = f"{array.dtype} {array.shape}"
            promised = f"{like.dtype} {like.shape}"
            raise ValueError(
                f"{self._name}: {what} returned {found} but its spec promises {promised}: mend the "
                "env"
            )
        return array
