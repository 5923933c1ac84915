"""Plays episodes in the slots of a pool.

The slots are split in two (double-buffered sampling): while the model decides for one split, the
simulators step the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.rollout.memory import Memory
from wamrl.rollout.recorder import Pending, Recorder
from wamrl.rollout.schedule import EpisodeSchedule
from wamrl.rollout.types import Rollout
from wamrl.runtime.cores import threads_beside
from wamrl.types import InitialState, Obs, Outcome, Sampler


@torch.no_grad()
def collect(
    wam: WAM,
    pool: Pool,
    starts: Iterable[InitialState],
    flow: FlowConfig,
    *,
    seed: int,
    sampler: Sampler,
    on_done: Callable[[int], None] = lambda n: None,
    max_steps: int | None = None,
    group: int = 1,
    cache_mb: float = math.inf,
) -> Rollout:
    """Run one episode per start, refilling slots as they finish; this rank's episodes only.

    seed: of the noise. on_done(n): told of n newly finished episodes. max_steps, group: a budget of
    control steps, see `EpisodeSchedule`, which draws no more of `starts` than are begun. cache_mb:
    of features that are kept, see `Recorder`. RuntimeError if every episode was lost.
    """
    wam.eval()
    schedule = EpisodeSchedule(starts, horizon=pool.spec.horizon, group=group, max_steps=max_steps)
    recorder = Recorder(len(pool.spec.counters), cache_mb)
    player = _Player(wam, pool, schedule, recorder, flow, sampler, seed)
    beside = pool.config.n_workers if pool.config.num_splits > 1 else 0
    with threads_beside(beside):
        return player.play(on_done)


@dataclass
class Split:
    """Some slots, served by the model while those of another split are stepped."""

    slots: range
    obs: Obs | None = None  # of all slots, as last received; valid for those of ours that run
    pending: Pending | None = None
    fresh: tuple[int, ...] = ()  # slots in which an episode begins

    @property
    def away(self) -> bool:
        """Something was sent and has not come back."""
        return self.pending is not None or bool(self.fresh)


class _Player:
    """Which slot plays which episode."""

    def __init__(
        self,
        wam: WAM,
        pool: Pool,
        schedule: EpisodeSchedule,
        recorder: Recorder,
        flow: FlowConfig,
        sampler: Sampler,
        seed: int,
    ):
        self.wam = wam
        self.pool = pool
        self.schedule = schedule
        self.recorder = recorder
        self.flow = flow
        self.sampler = sampler
        self.seed = seed
        self.device = next(wam.parameters()).device
        self.running: dict[int, int] = {}  # slot -> episode
        self.generators: dict[int, torch.Generator] = {}  # slot -> the noise of its episode
        self.memory = Memory(wam)
        self.bounds = tuple(torch.from_numpy(bound) for bound in pool.spec.bounds)

    def play(self, on_done: Callable[[int], None]) -> Rollout:
        """The splits in turn, always in the same order,
        so that a rollout can be repeated bitwise.
        """
        pool = self.pool
        slots = pool.config.n_envs
        number = min(pool.config.num_splits, slots)
        pool.reset()
        # Every split has slots in every worker.
        splits = [Split(range(i, slots, number)) for i in range(number)]
        begin = time.perf_counter()
        busy = pool.busy_s
        waited = 0.0
        while True:
            for split in splits:
                before = time.perf_counter()
                out = pool.receive() if split.away else None
                waited += time.perf_counter() - before
                ended = 0 if out is None else self._record(split, out)
                self._send(split)
                on_done(ended)
            if not any(split.away for split in splits):
                break
        wall = time.perf_counter() - begin
        worked = (pool.busy_s - busy) / pool.config.n_workers
        return self._rollout(model_idle_s=waited, env_idle_s=max(0.0, wall - worked))

    def _record(self, split: Split, out: Outcome) -> int:
        """Keep what came back; returns how many episodes ended."""
        split.obs = out.obs
        for slot in split.fresh:
            if out.lost[slot]:
                self.schedule.put_back(self.running.pop(slot))
        ended = []
        if split.pending is not None:
            ended = self.recorder.record(split.pending, out)
            self._remember(split.pending, out)
        for slot in ended:
            episode = self.running.pop(slot)
            self.memory.forget(episode)
            self.schedule.ended(self.recorder.length[episode])
        split.pending = None
        split.fresh = ()
        return len(ended)

    def _remember(self, pending: Pending, out: Outcome) -> None:
        """What was seen and done, of the episodes that go on."""
        on = ~out.done[pending.slots]
        if on.any():
            actions = pending.plan.actions[on].clamp(*self.bounds)
            executed = out.executed[pending.slots][on]
            self.memory.observe(pending.episodes[on].tolist(), pending.obs[on], actions, executed)

    def _send(self, split: Split) -> None:
        """Decide for the split's running episodes,
        begin new ones in its idle slots, and send both.
        """
        ready = torch.tensor([s for s in split.slots if s in self.running], dtype=torch.long)
        starts = self._begin([s for s in split.slots if s not in self.running])
        split.fresh = tuple(starts)
        size = self.pool.config.n_envs
        spec = self.wam.spec
        actions = torch.zeros(size, spec.chunk, spec.action_dim)
        active = torch.zeros(size, dtype=torch.bool)
        if len(ready):
            split.pending = self._decide(ready, split.obs[ready])
            actions[ready] = split.pending.plan.actions
            active[ready] = True
        if split.away:
            self.pool.send(actions, active, starts)

    def _decide(self, slots: Tensor, obs: Obs) -> Pending:
        generators = [self.generators[s] for s in slots.tolist()]
        seeds = torch.stack([torch.randint(2**62, (), generator=g) for g in generators])
        episodes = [self.running[s] for s in slots.tolist()]
        seen = obs.to(self.device)
        state = self.memory.state(episodes)
        plan = self.wam.act(seen, seeds, self.flow, generators, self.sampler, state)
        # features stay where the update reads them
        plan = replace(plan.drop_features().to("cpu"), features=plan.features)
        obs = replace(obs, past=self.memory.past(episodes, obs))
        return Pending(slots=slots, episodes=torch.tensor(episodes), obs=obs, plan=plan)

    def _begin(self, idle: list[int]) -> dict[int, InitialState]:
        """The starts of the episodes that begin in idle slots."""
        starts = {}
        for slot in idle:
            episode = self.schedule.next()
            if episode is None:
                break
            self.recorder.begin(episode)
            self.memory.forget(episode)
            self.running[slot] = episode
            self.generators[slot] = self.schedule.generator(episode, self.seed)
            starts[slot] = self.schedule.starts[episode]
        return starts

    def _rollout(self, *, model_idle_s: float, env_idle_s: float) -> Rollout:
        decisions, kept = self.recorder.decisions()
        success = torch.zeros(len(kept), dtype=torch.bool)
        success[decisions.episode[decisions.success]] = True
        progress = torch.stack(self.recorder.progress)[kept]
        return Rollout(
            decisions=decisions,
            starts=[self.schedule.starts[e] for e in kept],
            own=range(len(kept)),
            success=success,
            length=torch.tensor(self.recorder.length)[kept],
            stages=progress[:, 0],
            counters=progress[:, 1:],
            counter_names=self.pool.spec.counters,
            tasks=self.pool.spec.tasks,
            turns=self.pool.spec.turns,
            lost=len(self.recorder.lost),
            steps=sum(self.recorder.length),
            horizon=self.pool.spec.horizon,
            frame_offsets=self.pool.frame_offsets,
            bounds=self.bounds,
            model_idle_s=model_idle_s,
            env_idle_s=env_idle_s,
        )
