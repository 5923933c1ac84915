"""Many environments in worker processes, stepped by the chunk:
one message per worker executes n_exec actions in each of its slots.

Frames are rendered only where somebody looks: at `frame_offsets`, and where the next observations
look back to (`history_offsets`). Finished slots are masked, never reset by themselves: `send` says
where the next episodes begin. A worker that dies or hangs is replaced, which is said, and the
episodes that ran in it come back `lost`. An exception in an environment is a bug and is raised
here.

Whoever sends to one half of the slots while the other half is served by the model keeps both busy
(double-buffered sampling, wamrl/rollout/collect.py).

Example:
    config = PoolConfig(n_envs=8)
    with config.build(PointConfig(), n_exec=8, frame_offsets=(4, 8)) as pool:
        begin = {slot: InitialState(split="train", index=slot) for slot in range(8)}
        nothing = torch.zeros(8, 8, pool.spec.action_dim)
        pool.send(nothing, torch.zeros(8, dtype=torch.bool), begin)
        first = pool.receive().obs
        pool.send(nothing, torch.ones(8, dtype=torch.bool), {})
        outcome = pool.receive()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from wamrl.envs.base import EnvConfig
from wamrl.pool.group import Order, WorkerGroup
from wamrl.pool.ray import RayWorker, connect
from wamrl.runtime.cores import workers
from wamrl.runtime.processes import WorkerProcess
from wamrl.runtime.ranges import Positive, Processes, Size, check_ranges
from wamrl.types import InitialState, Obs, Outcome


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """The simulators: `n_envs` slots, shared out to `n_workers` processes."""

    n_envs: Size = 32
    # 0: half of the cores, all but one beside a GPU; demonstrations take all
    n_workers: Processes = 0
    # the model serves one split of the environments while another is stepped; 1: no overlap
    num_splits: Annotated[int, Ge(1), Le(64)] = 2
    backend: Literal["processes", "ray"] = "processes"  # ray: workers on the machines of a cluster
    ray_address: str = "auto"  # of the cluster; auto: the one that this machine belongs to
    # a worker that needs longer for one control step or reset counts as hung
    timeout_s: Positive = 60.0

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "pool")

    def build(
        self,
        env: EnvConfig,
        *,
        n_exec: int,
        frame_offsets: tuple[int, ...],
        history_offsets: tuple[int, ...] = (0,),
    ) -> Pool:
        """For n_exec and the offsets see `check_offsets`; ValueError for what is not possible."""
        self.validate()
        check_offsets(n_exec, frame_offsets, history_offsets)
        start = partial(WorkerProcess, "wamrl.pool.worker")
        if self.backend == "ray":
            connect(self.ray_address)
            start = RayWorker
        resolved = replace(self, n_workers=min(self.n_workers or workers(), self.n_envs))
        group = WorkerGroup(
            env,
            start=start,
            n_workers=resolved.n_workers,
            timeout_s=self.timeout_s,
            sizes={
                "n_envs": self.n_envs,
                "n_exec": n_exec,
                "frame_offsets": frame_offsets,
                "history_offsets": history_offsets,
            },
        )
        return Pool(resolved, group)


def check_offsets(
    n_exec: int, frame_offsets: tuple[int, ...], history_offsets: tuple[int, ...]
) -> None:
    """n_exec: actions executed per chunk. frame_offsets: control steps after the observation at
    which frames are kept; those later than n_exec are never verifiable. history_offsets: control
    steps before it that the next observations look back to. ValueError if they are not possible.
    """
    if n_exec < 1:
        raise ValueError(f"n_exec={n_exec} is not possible: execute at least one action")
    if list(frame_offsets) != sorted(set(frame_offsets)) or min(frame_offsets, default=1) < 1:
        raise ValueError(
            f"frame_offsets={frame_offsets} is not possible: give ascending control steps >= 1"
        )
    if list(history_offsets) != sorted(set(history_offsets)) or history_offsets[-1:] != (0,):
        raise ValueError(
            f"history_offsets={history_offsets} is not possible: give ascending control steps "
            "that end with 0"
        )


class Pool(AbstractContextManager):
    """Slots 0..B-1. A slot is *live* from the `send` that begins an episode in it until `receive`
    reports the episode's end. Use it as a context manager.

    config: how it was made, `n_workers` being their number. spec: the environment's.
    """

    def __init__(self, config: PoolConfig, group: WorkerGroup) -> None:
        self.config = config
        self.spec = group.layout.spec
        self.frame_offsets = group.layout.frame_offsets
        self._group = group
        self._live = np.zeros(config.n_envs, bool)
        # `WorkerGroup.replaced` when the slot's episode began
        self._began = group.replaced.copy()
        self._told = [self.spec.instruction] * config.n_envs  # the slots' instructions
        # oldest first: bool (B,) slots that were sent, to be received, and the workers' order
        self._sent: deque[tuple[np.ndarray, Order]] = deque()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return self._group.pids

    @property
    def busy_s(self) -> float:
        """Seconds that the workers were at work so far, summed over them."""
        return self._group.busy_s

    @property
    def _lost(self) -> np.ndarray:
        """bool (B,): slots whose episodes began in a worker that was replaced since."""
        return self._began != self._group.replaced

    def reset(self) -> None:
        """Drop all episodes, also what an interrupted rollout has left behind."""
        while self._sent:
            self.receive()
        self._live[:] = False

    def send(
        self,
        actions_BNA: Tensor,
        active_B: Tensor,
        starts: Mapping[int, InitialState],
    ) -> None:
        """Have the first n_exec actions executed in every active slot, and return at once;
        float32 (B, N >= n_exec, A), bool (B,).

        starts: slots in which a new episode begins meanwhile, instead of a chunk.
        Slots that are not active or have no episode are masked (zero rows).
        """
        self._group.require_open()
        begins = np.zeros_like(self._live)
        begins[list(starts)] = True
        sent = begins | (active_B.numpy() & self._live)
        if any((sent & slots).any() for slots, _ in self._sent):
            raise ValueError("a slot was sent that is not received yet: call receive before")
        running = sent & ~begins & ~self._lost
        self._write_actions(actions_BNA.numpy(), running)
        todo: dict[int, int | None] = dict.fromkeys(np.flatnonzero(running).tolist())
        todo |= {slot: start.seed for slot, start in starts.items()}
        order = self._group.send(todo)
        self._live |= begins
        self._began[begins] = self._group.replaced[begins]
        for slot, start in starts.items():
            self._told[slot] = self.spec.told(start.index)
        self._sent.append((sent, order))

    def receive(self) -> Outcome:
        """What became of the oldest `send`.

        Slots with a new episode have its first observation and zero rows else. An episode that ends
        by itself inside the chunk has `executed < n_exec`. The next observation looks back exactly,
        except that after a *terminated* episode the older frames are the latest ones rendered until
        then.
        """
        self._group.require_open()
        sent, order = self._sent.popleft()
        self._group.receive(order)
        lost = sent & self._lost
        outcome = self._read(sent & ~lost, lost)
        self._live &= ~outcome.done.numpy()
        return outcome

    def close(self) -> None:
        """Stop the workers and free the shared memory."""
        self._group.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, seen: np.ndarray, lost: np.ndarray) -> Outcome:
        """Out of the shared block into tensors that nobody else writes to: the records of the slots
        that have an observation (seen), zero in the others; bool (B,).
        """
        block = self._group.block
        records = np.zeros(len(block), block.dtype)
        for slot in np.flatnonzero(seen):  # workers may be writing to others meanwhile
            records[slot] = block[slot]
        columns = {name: torch.from_numpy(records[name]) for name in block.dtype.names}
        del columns["actions"], columns["steps"]
        obs = Obs(
            frames=columns.pop("obs_frames"),
            proprio=columns.pop("obs_proprio"),
            text=tuple(self._told),
        )
        return Outcome(
            verifiable=columns["executed"][:, None] >= torch.tensor(self.frame_offsets),
            lost=torch.from_numpy(lost),
            obs=obs,
            **columns,
        )

    def _write_actions(self, actions: np.ndarray, slots: np.ndarray) -> None:
        """The first n_exec of each slot, bool (B,), into the shared block."""
        block = self._group.block["actions"]
        chosen = actions[:, : block.shape[1]]
        if chosen.dtype != np.float32 or chosen.shape != block.shape:
            raise ValueError(
                f"actions are {actions.dtype} {actions.shape}: the pool needs float32 "
                f"{block.shape}, or longer chunks"
            )
        if not np.isfinite(chosen[slots]).all():
            raise ValueError(
                "actions contain NaN or infinity: the policy has diverged; lower the learning rate"
            )
        block[slots] = chosen[slots]
