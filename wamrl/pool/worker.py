"""What runs in a worker process: build some environments, then execute chunks. No torch here.

python -m wamrl.pool.worker PIPE_FD MEMORY_FD     started by `wamrl/pool/group.py`
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections import deque

import numpy as np

from wamrl.envs.base import Env, EnvConfig
from wamrl.envs.checked import build_checked
from wamrl.pool.shared_memory import Layout
from wamrl.runtime.processes import serve


class Worker:
    """The environments of some slots; the pool calls its methods by their names."""

    def __init__(self, memory_fd: int) -> None:
        """memory_fd: of the shared block, or `NO_FILE`."""
        self._memory_fd = memory_fd
        self._slots: dict[int, _Slot] = {}

    def build(self, config: EnvConfig, slots: range, sizes: dict[str, object]) -> Layout:
        """Make the environments; sizes: what `Layout` needs beside their spec."""
        envs = [build_checked(config) for _ in slots]
        layout = Layout(spec=envs[0].spec, **sizes)
        self.block = layout.map_block(self._memory_fd)  # of all slots; we use the records of ours
        for slot, env in zip(slots, envs, strict=True):
            self._slots[slot] = _Slot(env, layout, self.block[slot])
        return layout

    def run(self, todo: dict[int, int | None]) -> float:
        """Begin an episode from the seed in some slots, execute a chunk (None) in others;
        seconds that it took.
        """
        begin = time.perf_counter()
        for slot, seed in todo.items():
            if seed is None:
                self._slots[slot].step()
            else:
                self._slots[slot].reset(seed)
        return time.perf_counter() - begin

    def close(self) -> None:
        for slot in self._slots.values():
            slot.env.close()


class _Slot:
    """One environment and its record in the block."""

    def __init__(self, env: Env, layout: Layout, record: np.void) -> None:
        self.env = env
        self._record = record
        self._frame_offsets = layout.frame_offsets
        self._history = layout.history_offsets
        # Chunks begin at multiples of n_exec, so the age tells whether somebody looks: now, or back
        # from the end of this or of a later chunk, or back from the horizon.
        self._n_exec = layout.n_exec
        looked = [*self._frame_offsets, *self._history]
        self._drawn = {step % self._n_exec for step in looked if step <= self._n_exec}
        self._drawn_at_end = {env.spec.horizon + offset for offset in self._history}
        # (age, frame), as many as the oldest history offset may need
        self._past: deque[tuple[int, np.ndarray]] = deque(maxlen=1 - self._history[0])
        self._age = 0  # control steps of the episode so far

    def reset(self, seed: int) -> None:
        self.env.reset(seed)
        self._age = 0
        self._past.clear()
        for name in self._record.dtype.names:
            if name != "steps":
                self._record[name] = 0
        self._record["steps"] += 1
        self._draw()
        self._observe()

    def step(self) -> None:
        """Execute one chunk, up to the end of the episode."""
        record = self._record
        success = False
        for executed, action in enumerate(record["actions"].copy(), start=1):
            result = self.env.step(action)
            self._age += 1
            record["steps"] += 1
            success = success or result.success
            ended = result.terminated or result.truncated
            drawn = self._age % self._n_exec in self._drawn or self._age in self._drawn_at_end
            if drawn or ended:
                frame = self._draw()
                if executed in self._frame_offsets:
                    record["frames"][self._frame_offsets.index(executed)] = frame
            if ended:
                break
        reached = bisect_right(self._frame_offsets, executed)
        record["frames"][reached:] = 0  # those of an earlier chunk
        record["executed"] = executed
        record["success"] = success
        for name in ("stages", "terminated", "truncated"):
            record[name] = getattr(result, name)
        record["counters"] = np.array(result.counters, np.int64)
        self._observe()

    def _draw(self) -> np.ndarray:
        """The present frame; remembered, for who will look back."""
        frame = self.env.render().copy()
        self._past.append((self._age, frame))
        return frame

    def _observe(self) -> None:
        """What the model sees now; after a *terminated* episode, the older frames are the latest
        ones drawn until then.
        """
        ages = [age for age, _ in self._past]
        for place, offset in enumerate(self._history):
            latest = max(0, bisect_right(ages, self._age + offset) - 1)
            self._record["obs_frames"][place] = self._past[latest][1]
        self._record["obs_proprio"] = self.env.proprio()


if __name__ == "__main__":
    serve(Worker(int(sys.argv[2])))
