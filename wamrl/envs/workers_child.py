"""What runs in a worker process: build some environments, then execute chunks until the pipe closes. No torch here.

Messages from the pool, and the answers; every answer is ("ok", value) or ("error", exception):
    ("build", env_config, count)     -> EnvSpec
    ("attach", layout, first_slot)   -> None          maps the shared block
    ("reset", [(slot, seed), ...])   -> float         a new episode in each slot; seconds that it took
    ("step", [(slot, seed or None), ...]) -> float    the same, or one chunk where there is no seed
    None                             -> the worker closes its environments and exits
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from wamrl.envs.base import Env, EnvConfig, EnvSpec
from wamrl.envs.workers_memory import Layout, map_block


def main(pipe_fd: int, memory_fd: int) -> None:
    """Serve the pool at the other end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pool decides what ends
    pipe = Connection(pipe_fd)
    threading.Thread(target=_end_with, args=(pipe_fd,), daemon=True).start()
    worker = Worker()
    while (message := _receive(pipe)) is not None:
        if message[0] == "attach":
            _, layout, first = message
            arrays = layout.views(map_block(memory_fd, layout))
            message = ("attach", layout, first, {k: v[first : first + worker.count] for k, v in arrays.items()})
        pipe.send(answer_to(worker, message))
    worker.close()


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
            pipe.send(("error", ValueError(f"the worker cannot load the environment's config: {error}")))


def _end_with(pipe_fd: int) -> None:
    """Exit when the other end closes; a thread of its own, so that a worker busy in a simulator notices, too."""
    hangup = select.poll()
    hangup.register(pipe_fd, 0)  # woken by that alone, never by a message: a message costs one wake-up
    hangup.poll()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """As a class that the pool can unpickle: ValueError keeps its one sentence, a bug gets its traceback."""
    if isinstance(error, ValueError):
        return ValueError(str(error))
    return RuntimeError(f"an environment failed with {type(error).__name__}: {error}\n{traceback.format_exc()}")


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
        rows = _rows(arrays)
        self._slots = {
            first + i: _Slot(env, layout, {k: v[i] for k, v in rows.items()}) for i, env in enumerate(self._envs)
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


def _rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scalars per slot as arrays of one element, so that a slot's row can be written to."""
    return {k: v[:, None] if v.ndim == 1 else v for k, v in arrays.items()}


class _Slot:
    """One environment and its rows of the shared block."""

    def __init__(self, env: Env, layout: Layout, row: dict[str, Any]) -> None:
        self._env, self._layout, self._row = env, layout, row
        self._past: deque[tuple[int, np.ndarray]] = deque()  # (control step of the episode, frame), ascending
        self._age = 0  # control steps of the episode so far
        steps, back, horizon = range(layout.n_exec + 1), layout.history_offsets, env.spec.horizon
        self._place = {offset: place for place, offset in enumerate(layout.frame_offsets)}
        # Control steps of a chunk after which somebody looks, now or, from the end of this or a later chunk, back.
        self._seen = [k in self._place or any((k - h) % layout.n_exec == 0 for h in back) for k in steps]
        self._late = {horizon + h for h in back}  # and those of the episode that its end looks back to

    def reset(self, seed: int) -> None:
        self._env.reset(seed)
        self._age = 0
        self._past.clear()
        self._past.append((0, self._render()))
        self._write_obs()

    def step(self) -> None:
        """Execute one chunk, up to the end of the episode."""
        row, start, success = self._row, self._age, False
        row["frames"][:], row["verifiable"][:] = 0, False
        for k, action in enumerate(row["actions"].copy(), start=1):
            result = self._env.step(action)
            self._age += 1
            success |= result.success
            end = result.terminated or result.truncated
            if end or self._seen[k] or self._age in self._late:
                self._past.append((self._age, self._render()))
                if (place := self._place.get(k)) is not None:
                    row["frames"][place], row["verifiable"][place] = self._past[-1][1], True
            if end:
                break
        row["executed"][0], row["success"][0] = self._age - start, success
        row["stages"][0], row["attempts"][0], row["retries"][0] = result.stages, result.attempts, result.retries
        row["terminated"][0], row["truncated"][0] = result.terminated, result.truncated
        self._write_obs()

    def _write_obs(self) -> None:
        oldest = self._age + self._layout.history_offsets[0]
        while len(self._past) > 1 and self._past[1][0] <= oldest:
            self._past.popleft()
        for place, offset in enumerate(self._layout.history_offsets):
            earlier = [frame for age, frame in self._past if age <= self._age + offset]
            self._row["obs_frames"][place] = earlier[-1] if earlier else self._past[0][1]
        self._row["obs_proprio"][:] = _checked(self._env.proprio(), self._row["obs_proprio"], "proprio()", self._env)

    def _render(self) -> np.ndarray:
        return _checked(self._env.render(), self._row["obs_frames"][0], "render()", self._env).copy()


def _checked(array: np.ndarray, like: np.ndarray, what: str, env: Env) -> np.ndarray:
    if array.shape != like.shape or array.dtype != like.dtype:
        found, promised = f"{array.dtype} {array.shape}", f"{like.dtype} {like.shape}"
        raise ValueError(f"{env.spec.name}: {what} returned {found} but its spec promises {promised}: mend the env")
    return array
