"""Keeps what became of every decision, and makes a `Rollout` of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wamrl.models.wam import ActionChunk
from wamrl.rollout.types import Decisions
from wamrl.types import Obs, Outcome, rows_of


@dataclass(frozen=True)
class Pending:
    """Decisions whose outcome is not known yet, m of them."""

    slots: Tensor  # int64 (m,)
    episodes: Tensor  # int64 (m,)
    obs: Obs  # what was seen
    plan: ActionChunk  # what is done


class Recorder:
    """Rows of decisions, and how far every episode has come."""

    def __init__(self, counters: int, cache_mb: float):
        """counters: C, of the environment. cache_mb: as soon as the features of all decisions
        exceed so many megabytes, none are kept (see `WAM.with_features`).
        """
        # of each episode so far: control steps; sub-goals and counters (1 + C), as in an `Outcome`
        self.length: list[int] = []
        self.progress: list[Tensor] = []
        self.lost: set[int] = set()  # episodes
        self._counters = counters
        self._rows: list[Decisions] = []
        self._cache = cache_mb * 1e6
        self._bytes = 0  # of features so far

    def begin(self, episode: int) -> None:
        """Episode numbers come in order; one that begins again is known already."""
        if episode == len(self.length):
            self.length.append(0)
            self.progress.append(torch.zeros(1 + self._counters, dtype=torch.long))

    def record(self, pending: Pending, out: Outcome) -> list[int]:
        """What became of decisions, copied out of `out`; returns the slots whose episode ended."""
        slots = pending.slots
        row = Decisions(
            obs=pending.obs,
            plan=pending.plan,
            frames=rows_of(out.frames, slots),
            verifiable=out.verifiable[slots],
            executed=out.executed[slots],
            success=out.success[slots],
            done=out.done[slots],
            episode=pending.episodes,
            step=torch.tensor([self.length[e] for e in pending.episodes.tolist()]),
        )
        self._keep(row)
        lost = out.lost[slots].tolist()
        executed = row.executed.tolist()
        # they never go back, but are zero where a worker was lost
        progress = torch.cat([out.stages[:, None], out.counters], 1)[slots]
        for i, episode in enumerate(pending.episodes.tolist()):
            self.length[episode] += executed[i]
            self.progress[episode] = torch.maximum(self.progress[episode], progress[i])
            if lost[i]:
                self.lost.add(episode)
        return slots[row.done].tolist()

    def _keep(self, row: Decisions) -> None:
        """With its features, unless those of the rollout have become too many."""
        full = self._bytes > self._cache
        self._bytes += row.plan.features.nbytes
        if self._bytes > self._cache:
            row = _without_features(row)
            if not full:
                self._rows = [_without_features(r) for r in self._rows]
        self._rows.append(row)

    def decisions(self) -> tuple[Decisions, list[int]]:
        """Those of all episodes that were not lost, sorted by (episode, step), with the episodes
        numbered anew; and the old numbers. Nothing is kept, so it can be called once.
        RuntimeError if every episode was lost.
        """
        kept = [e for e in range(len(self.length)) if e not in self.lost]
        if not kept:
            raise RuntimeError(
                "every episode was lost with its worker: look at the workers' errors and the memory"
            )
        rows = Decisions.cat(self._rows)
        self._rows.clear()  # features may fill a GPU: not a third copy beside the sorted one
        number = torch.full((len(self.length),), -1)
        number[kept] = torch.arange(len(kept))
        order = (rows.episode * (max(self.length) + 1) + rows.step).argsort(stable=True)
        rows = rows[order[number[rows.episode[order]] >= 0]]
        rows.episode.copy_(number[rows.episode])
        return rows, kept


def _without_features(row: Decisions) -> Decisions:
    return replace(row, plan=row.plan.drop_features())
