"""Plays episodes in the slots of a pool: which slot plays which, and the rows recorded so far."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wamrl.models.base import WAM, ActionChunk
from wamrl.models.flow import FlowConfig, Sampler
from wamrl.pool.pool import Pool
from wamrl.rollout.types import Decisions, Rollout
from wamrl.runtime.cores import threads_beside
from wamrl.types import InitialState, Obs, Outcome, rows_of


def episode_generator(seed: int, start: InitialState, repeat: int) -> torch.Generator:
    """The noise of one episode: a function of the run,
    the start and its repetition, not of the batch it ran in.
    """
    state = np.random.SeedSequence([seed, start.seed, repeat]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@torch.no_grad()
def collect(
    wam: WAM,
    pool: Pool,
    starts: Sequence[InitialState],
    flow: FlowConfig,
    *,
    seed: int,
    sampler: Sampler,
    on_done: Callable[[int], None] = lambda n: None,
    max_steps: int | None = None,
    group: int = 1,
    cache_mb: float = math.inf,
) -> Rollout:
    """Run one episode per start, refilling slots as they finish.
    `on_done(n)` is told of n newly finished episodes.

    `max_steps` is a budget of control steps. `group` successive starts are begun together or not at
    all: in order, as long as a whole group still fits into the budget if all its episodes last to
    the horizon. What is begun is completed, and how many are begun does not depend on the number of
    slots. So the budget is never passed, and where there are starts enough, less than `group *
    horizon` steps of it are left. ValueError if it does not hold one group.

    `cache_mb`: as soon as the features of all decisions exceed so many megabytes,
    none are kept (see `WAM.with_features`).
    """
    wam.eval()
    least = group * pool.spec.horizon
    if max_steps is not None and max_steps < least:
        raise ValueError(
            f"{max_steps} control steps may not hold {group} episodes: allow {least} or more"
        )
    beside = pool.config.n_workers if pool.config.num_splits > 1 else 0
    with threads_beside(beside):
        return _Runner(
            wam, pool, list(starts), flow, seed, sampler, max_steps, group, cache_mb
        ).run(on_done)


@dataclass
class _Lane:
    """Some slots, served by the model while those of another lane are stepped."""

    slots: range
    obs: Obs | None = None  # of all slots, as last received; valid for those of this lane that run
    decided: tuple[Tensor, Obs, ActionChunk] | None = (
        None  # slots (m,), what they saw, what they do
    )
    fresh: tuple[int, ...] = ()  # slots in which an episode begins

    @property
    def away(self) -> bool:
        return self.decided is not None or bool(self.fresh)


class _Runner:
    """Which slot plays which episode, and the rows recorded so far."""

    def __init__(
        self,
        wam: WAM,
        pool: Pool,
        starts: list[InitialState],
        flow: FlowConfig,
        seed: int,
        sampler: Sampler,
        max_steps: int | None,
        group: int,
        cache_mb: float,
    ):
        self.wam = wam
        self.pool = pool
        self.starts = starts
        self.flow = flow
        self.sampler = sampler
        self.device = next(wam.parameters()).device
        seen: Counter[InitialState] = Counter()
        self.repeats = [seen.update([s]) or seen[s] - 1 for s in starts]
        self.seed = seed
        self.todo = 0
        self.rows = []
        self.lost = set()
        self.max_steps = max_steps
        self.group = group
        self.horizon = pool.spec.horizon
        self.cached = 0  # bytes of features
        self.cache = cache_mb * 1e6
        self.admitted = 0 if max_steps is not None else len(starts)
        self.unused = 0  # control steps before the horizon at which finished episodes ended
        self.length, self.stages, self.attempts, self.retries = torch.zeros(
            4, len(starts), dtype=torch.long
        )
        self.generators: dict[int, torch.Generator] = {}
        self.running: dict[int, int] = {}  # slot -> episode
        self.again: list[int] = []  # episodes whose worker was lost before they had begun
        pool.reset()
        slots = min(pool.config.n_envs, len(starts))
        lanes = min(pool.config.num_splits, slots)
        # Every lane has slots in every worker.
        self.lanes = [_Lane(range(i, slots, lanes)) for i in range(lanes)]

    def run(self, on_done: Callable[[int], None]) -> Rollout:
        """The lanes in turn, always in the same order,
        so that a rollout can be repeated bitwise.
        """
        begin = time.perf_counter()
        busy = self.pool.busy_s
        waited = 0.0
        while True:
            for lane in self.lanes:
                before = time.perf_counter()
                out = self.pool.receive() if lane.away else None
                waited += time.perf_counter() - before
                ended = 0 if out is None else self._record(lane, out)
                self._send(lane)
                on_done(ended)
            if not any(lane.away for lane in self.lanes):
                break
        wall = time.perf_counter() - begin
        worked = (self.pool.busy_s - busy) / self.pool.config.n_workers
        return self._result(model_idle_s=waited, env_idle_s=max(0.0, wall - worked))

    def _record(self, lane: _Lane, out: Outcome) -> int:
        """Keep what became of a lane's decisions;
        returns how many episodes ended.
        """
        lane.obs = out.obs
        ended = []
        for slot in lane.fresh:
            if out.lost[slot]:
                self.again.append(self.running.pop(slot))
        if lane.decided is not None:
            slots, obs, plan = lane.decided
            index = torch.tensor([self.running[s] for s in slots.tolist()])
            self.rows.append(
                Decisions(
                    obs=obs,
                    plan=plan,
                    frames=rows_of(out.frames, slots),
                    verifiable=out.verifiable[slots],
                    executed=out.executed[slots],
                    success=out.success[slots],
                    done=out.done[slots],
                    episode=index,
                    step=self.length[index],
                )
            )
            self.length[index] += out.executed[slots]
            # they never go back; rows of lost workers are zero
            for name in ("stages", "attempts", "retries"):
                best = getattr(self, name)
                best[index] = torch.maximum(best[index], getattr(out, name)[slots])
            self.lost.update(index[out.lost[slots]].tolist())
            ended = slots[out.done[slots]].tolist()
        for slot in ended:
            episode = self.running.pop(slot)
            self.unused += self.horizon - int(self.length[episode])
            del self.generators[episode]
        lane.decided = None
        lane.fresh = ()
        return len(ended)

    def _send(self, lane: _Lane) -> None:
        """Decide for the lane's running episodes,
        begin new ones in its idle slots, and send both.
        """
        ready = torch.tensor([s for s in lane.slots if s in self.running], dtype=torch.long)
        starts = self._refill([s for s in lane.slots if s not in self.running])
        lane.fresh = tuple(starts)
        size = self.pool.config.n_envs
        spec = self.wam.spec
        actions = torch.zeros(size, spec.chunk, spec.action_dim)
        active = torch.zeros(size, dtype=torch.bool)
        if len(ready):
            obs = lane.obs[ready]
            generators = [self.generators[self.running[s]] for s in ready.tolist()]
            seeds = torch.stack([torch.randint(2**62, (), generator=g) for g in generators])
            plan = self.wam.act(obs.to(self.device), seeds, self.flow, generators, self.sampler)
            # they stay where the update reads them
            plan = replace(plan.drop_features().to("cpu"), features=plan.features)
            actions[ready] = plan.actions
            active[ready] = True
            lane.decided = ready, obs, self._bounded(plan)
        if lane.away:
            self.pool.send(actions, active, starts)

    def _bounded(self, plan: ActionChunk) -> ActionChunk:
        """With its features, unless those of the rollout have become too many:
        then none are kept.
        """
        self.cached += plan.features.nbytes
        if self.cached <= self.cache:
            return plan
        self.rows = [replace(row, plan=row.plan.drop_features()) for row in self.rows]
        for lane in self.lanes:
            if lane.decided is not None:
                lane.decided = *lane.decided[:2], lane.decided[2].drop_features()
        return plan.drop_features()

    def _refill(self, idle: list[int]) -> dict[int, InitialState]:
        """Which episodes begin in the idle slots,
        as far as there are any and the budget allows them.
        """
        self._admit(self.todo + len(idle) - len(self.again))
        again = [self.again.pop(0) for _ in idle[: len(self.again)]]
        new = range(self.todo, min(self.admitted, self.todo + len(idle) - len(again)))
        self.todo += len(new)
        fresh = dict(zip(idle, [*again, *new], strict=False))
        self.running |= fresh
        for episode in fresh.values():
            self.generators[episode] = episode_generator(
                self.seed, self.starts[episode], self.repeats[episode]
            )
        return {slot: self.starts[episode] for slot, episode in fresh.items()}

    def _admit(self, wanted: int) -> None:
        """Let more groups begin, up to `wanted` episodes,
        while the longest that they can last fits into the budget.
        """
        while self.admitted < min(wanted, len(self.starts)):
            longest = (self.admitted + self.group) * self.horizon - self.unused
            if longest > self.max_steps:
                return
            self.admitted = min(self.admitted + self.group, len(self.starts))

    def _result(self, *, model_idle_s: float, env_idle_s: float) -> Rollout:
        chunks = Decisions.cat(self.rows)
        kept = [e for e in range(self.todo) if e not in self.lost]
        if not kept:
            raise RuntimeError(
                "every episode was lost with its worker: look at the workers' errors and the memory"
            )
        renumber = torch.full((len(self.starts),), -1)
        renumber[kept] = torch.arange(len(kept))
        order = (chunks.episode * (int(self.length.max()) + 1) + chunks.step).argsort(stable=True)
        chunks = chunks[order[renumber[chunks.episode[order]] >= 0]]
        chunks.episode.copy_(renumber[chunks.episode])
        success = torch.zeros(len(kept), dtype=torch.bool)
        success[chunks.episode[chunks.success]] = True
        return Rollout(
            decisions=chunks,
            starts=[self.starts[e] for e in kept],
            success=success,
            length=self.length[kept],
            stages=self.stages[kept],
            attempts=self.attempts[kept],
            retries=self.retries[kept],
            lost=len(self.lost),
            started=self.todo,
            steps=int(self.length.sum()),
            frame_offsets=self.pool.frame_offsets,
            bounds=tuple(torch.from_numpy(bound) for bound in self.pool.spec.bounds),
            model_idle_s=model_idle_s,
            env_idle_s=env_idle_s,
        )
