"""Many environments in worker processes, stepped by the chunk:
one message executes n_exec actions per slot.

Frames are rendered only where somebody looks: at `frame_offsets`, and where the next observations
look back to (`history_offsets`). Finished slots are masked, never reset by themselves;
`reset_slots` refills them. A worker that dies or hangs is replaced, and the episodes that ran in it
come back `lost`. An exception in an environment is a bug and is raised here.

`step` is `send` and `receive`. What they return is the caller's own, unless he passes a `buffer` to
save making new tensors. Whoever sends to one half of the slots while the other half is served by
the model keeps both busy (wamrl/rollout/collect.py).

Example:
    with PoolConfig(env=PointConfig(), n_envs=8, n_exec=8, frame_offsets=(4, 8)).build() as pool:
        obs = pool.reset([InitialState(split="train", index=i) for i in range(8)])
        outcome = pool.step(torch.zeros(8, 8, pool.spec.action_dim), pool.live)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wamrl.envs.base import EnvConfig
from wamrl.pool.outcome import OutcomeBuffer
from wamrl.pool.process import Process
from wamrl.pool.ray import RayProcess, connect
from wamrl.pool.team import Team
from wamrl.types import InitialState, Obs, Outcome

_NONE: Mapping[int, InitialState] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """A pool of `n_envs` slots, shared out to `n_workers` processes."""

    env: EnvConfig
    n_envs: int = 32
    n_workers: int = 2
    n_exec: int  # actions executed per chunk
    # control steps after the observation; those > n_exec are never verifiable
    frame_offsets: tuple[int, ...]
    history_offsets: tuple[int, ...] = (0,)  # control steps <= 0, ascending, the last is 0
    # halves of the slots, one stepped while the model serves the other; 1: they wait for each other
    lanes: int = 2
    backend: Literal["processes", "ray"] = "processes"  # ray: workers on the machines of a cluster
    ray_address: str = "auto"  # of the cluster; auto: the one that this machine belongs to
    timeout_s: float = 60.0  # a worker that needs longer for one message counts as hung

    def validate(self) -> None:
        self.env.validate()
        if not 1 <= self.n_workers <= self.n_envs:
            raise ValueError(
                f"n_workers={self.n_workers} is not possible: choose 1 to n_envs={self.n_envs}"
            )
        if self.lanes < 1:
            raise ValueError(f"lanes={self.lanes} is not possible: choose 2 (usual) or 1")
        if self.n_exec < 1 or self.timeout_s <= 0:
            raise ValueError(
                f"n_exec={self.n_exec}, timeout_s={self.timeout_s}: both must be positive"
            )
        frames = self.frame_offsets
        history = self.history_offsets
        if list(frames) != sorted(set(frames)) or any(f < 1 for f in frames):
            raise ValueError(
                f"frame_offsets={frames} is not possible: give ascending control steps >= 1"
            )
        if list(history) != sorted(set(history)) or history[-1:] != (0,):
            raise ValueError(
                f"history_offsets={history} is not possible: give ascending control steps that end "
                "with 0"
            )

    def build(self) -> Pool:
        self.validate()
        if self.backend == "ray":
            connect(self.ray_address)
        return Pool(self)


class _Sent(NamedTuple):
    slots: list[int]
    ran: np.ndarray  # bool (B,): those that execute a chunk
    seen: np.ndarray  # bool (B,): those, and the ones that begin an episode


class Pool:
    """Slots 0..B-1. A slot is *live* from its reset until `step` reports its end.
    Use it as a context manager.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._team = Team(
            config.env,
            kind=RayProcess if config.backend == "ray" else Process,
            n_envs=config.n_envs,
            n_workers=config.n_workers,
            n_exec=config.n_exec,
            frame_offsets=config.frame_offsets,
            history_offsets=config.history_offsets,
            timeout_s=config.timeout_s,
        )
        self.config = config
        self.spec = self._team.spec
        self._live = np.zeros(config.n_envs, bool)
        self._lost: set[int] = set()  # lost, but no `receive` has told so yet
        self._away: set[int] = set()  # sent to its worker, not yet received
        self._sent: deque[_Sent] = deque()

    @property
    def live(self) -> Tensor:
        """bool (B,): slots in which an episode runs."""
        return torch.from_numpy(self._live.copy())

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return self._team.pids

    def reset(self, starts: Sequence[InitialState | None]) -> Obs:
        """Start one episode per slot (None: the slot idles),
        dropping those that still run; Obs of all B slots.
        """
        if len(starts) != self.config.n_envs:
            raise ValueError(
                f"{len(starts)} starts for {self.config.n_envs} slots: give one per slot, or None"
            )
        while self._sent:  # what an interrupted rollout left behind
            self.receive()
        self._live[:] = False
        self._lost.clear()
        chosen = [(slot, start) for slot, start in enumerate(starts) if start is not None]
        return self.reset_slots([slot for slot, _ in chosen], [start for _, start in chosen])

    def reset_slots(self, slots: Sequence[int], starts: Sequence[InitialState]) -> Obs:
        """Start new episodes in some slots;
        the present observation of *all* B slots (zero where no episode runs).
        """
        seeds = {int(slot): start.seed for slot, start in zip(slots, starts, strict=True)}
        if len(seeds) != len(slots):
            raise ValueError(f"slots {list(slots)}: name each once")
        self._require_here(list(seeds))
        self._live[list(seeds)] = False
        self._lost.difference_update(seeds)
        todo = seeds
        while todo:  # again where a worker was replaced
            gone = self._team.tell("reset", todo)
            self._lost.update(slot for slot in gone if self._live[slot])
            todo = {slot: seed for slot, seed in todo.items() if slot in gone}
        self._live[list(seeds)] = True
        fresh = self.buffer()
        nobody = np.zeros_like(self._live)
        fresh.write(self._team.arrays, nobody, self._live & ~self._rows(self._lost), nobody)
        return fresh.outcome.obs

    def step(
        self,
        actions_BNA: Tensor | np.ndarray,
        active_B: Tensor | np.ndarray,
        buffer: OutcomeBuffer | None = None,
    ) -> Outcome:
        """Execute the first n_exec actions in every active slot;
        float32 (B, N >= n_exec, A), bool (B,).

        Slots that are not active or have no episode are masked (zero rows). An episode that ends by
        itself inside the chunk has `executed < n_exec`. The next observation looks back exactly,
        except that after a *terminated* episode the older frames
        are the latest ones rendered until then.
        """
        self.send(actions_BNA, active_B)
        return self.receive(buffer)

    def send(
        self,
        actions_BNA: Tensor | np.ndarray,
        active_B: Tensor | np.ndarray,
        starts: Mapping[int, InitialState] = _NONE,
    ) -> None:
        """Begin `step` and return at once.
        starts: slots in which a new episode begins meanwhile, instead of a step.
        """
        active = _array(active_B).astype(bool).reshape(self.config.n_envs) & self._live
        slots = [slot for slot in active.nonzero()[0].tolist() if slot not in starts]
        sent = [*slots, *starts]
        self._require_here(sent)
        running = [slot for slot in slots if slot not in self._lost]
        self._write_actions(actions_BNA, running)
        self._team.send(
            "step", dict.fromkeys(running) | {slot: start.seed for slot, start in starts.items()}
        )
        # the workers run: what does not concern them is done from here on
        ran = seen = self._rows(slots)
        if starts:
            seen = self._rows(sent)
            self._live |= seen
            self._lost.difference_update(starts)
        self._away.update(sent)
        self._sent.append(_Sent(sent, ran, seen))

    def receive(self, buffer: OutcomeBuffer | None = None) -> Outcome:
        """What became of the oldest `send`.
        Slots with a new episode have its first observation and zero rows else.

        With a `buffer`, the outcome is the buffer's,
        and is overwritten when the buffer is used next.
        """
        sent = self._sent.popleft()
        self._away.difference_update(sent.slots)
        self._lost.update(slot for slot in self._team.receive() if self._live[slot])
        told = [slot for slot in sent.slots if slot in self._lost]
        self._lost.difference_update(told)
        lost = self._rows(told)
        ran = sent.ran
        seen = sent.seen
        if told:
            ran = ran & ~lost
            seen = seen & ~lost
        buffer = buffer or self.buffer()
        self._live &= ~buffer.write(self._team.arrays, ran, seen, lost)
        return buffer.outcome

    def buffer(self) -> OutcomeBuffer:
        """For `receive` and `step`: room for an outcome, to be written again and again."""
        return OutcomeBuffer(self._team.layout)

    @property
    def busy_s(self) -> float:
        """Seconds that the workers were at work so far, summed over them."""
        return self._team.busy_s

    def close(self) -> None:
        """Stop the workers and free the shared memory."""
        self._team.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, slots: Collection[int]) -> np.ndarray:
        """bool (B,), True at the slots."""
        rows = np.zeros(self.config.n_envs, bool)
        if slots:
            rows[list(slots)] = True
        return rows

    def _require_here(self, slots: list[int]) -> None:
        top = self.config.n_envs - 1
        if slots and (min(slots) < 0 or max(slots) > top or not self._away.isdisjoint(slots)):
            raise ValueError(
                f"slots {slots}: choose from 0 to {top}, none that is sent and not received"
            )

    def _write_actions(self, actions: Tensor | np.ndarray, slots: list[int]) -> None:
        """The first n_exec of each slot, into the shared block."""
        array = _array(actions)
        n_exec = self.config.n_exec
        dim = self.spec.action_dim
        fits = (
            array.ndim == 3
            and array.shape[::2] == (self.config.n_envs, dim)
            and array.shape[1] >= n_exec
        )
        if array.dtype != np.float32 or not fits:
            wanted = f"float32 ({self.config.n_envs}, N >= {n_exec}, {dim})"
            raise ValueError(f"actions are {array.dtype} {array.shape}: the pool needs {wanted}")
        rows = slots if len(slots) < self.config.n_envs else slice(None)
        chosen = array[rows, :n_exec]
        if np.count_nonzero(np.isfinite(chosen)) < chosen.size:
            raise ValueError(
                "actions contain NaN or infinity: the policy has diverged; lower the learning rate"
            )
        self._team.arrays["actions"][rows] = chosen


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
