"""Where episodes start: fresh training states, and again those with mixed outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl.runtime import dist
from wamrl.runtime.ranges import Count, Fraction, Size, check_ranges
from wamrl.types import InitialState


@dataclass(frozen=True, kw_only=True)
class InitialStatesConfig:
    """`group` episodes share an initial state;
    a `revisit` share of the groups goes where outcomes were mixed.
    """

    group: Size = 4
    revisit: Fraction = 0.5
    capacity: Count = 4096  # remembered initial states

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "initial_states")


class InitialStateSampler:
    """Counts tries and successes per training state."""

    def __init__(self, cfg: InitialStatesConfig):
        cfg.validate()
        self.cfg = cfg
        self.tries = torch.zeros(cfg.capacity)
        self.wins = torch.zeros(cfg.capacity)
        self.fresh = 0  # states drawn for the first time so far

    def draw(self, groups: int, generator: torch.Generator) -> list[InitialState]:
        """`groups * cfg.group` starts of all ranks, equal ones adjacent, the revisits first."""
        return list(self._starts(groups, self._revisits(groups, generator), 1.0))

    def stream(self, max_steps: int, generator: torch.Generator) -> Iterator[InitialState]:
        """Starts one after the other, for a budget of control steps that decides how many begin.

        As many as could fit: an episode lasts a step at least. Revisits lie in between, so that of
        the first n groups a share `cfg.revisit` are some. What is not asked for counts as not
        drawn.
        """
        groups = max_steps // self.cfg.group
        return self._starts(groups, self._revisits(groups, generator), self.cfg.revisit)

    def _revisits(self, groups: int, generator: torch.Generator) -> list[int]:
        """Drawn with weight p (1 - p) of the estimate p = (wins + 1) / (tries + 2);
        states that always or never succeeded are not revisited.
        """
        mixed = (self.wins > 0) & (self.wins < self.tries)
        p = (self.wins + 1) / (self.tries + 2)
        number = min(int(groups * self.cfg.revisit), int(mixed.sum()))
        if number == 0:
            return []
        return torch.multinomial(mixed * p * (1 - p), number, generator=generator).tolist()

    def _starts(self, groups: int, revisits: list[int], share: float) -> Iterator[InitialState]:
        """Of the first n groups, min(n * share, len(revisits)) are revisits."""
        used = 0
        for n in range(1, groups + 1):
            if min(int(n * share), len(revisits)) > used:
                index = revisits[used]
                used += 1
            else:
                index = self.fresh % self.cfg.capacity
                self.fresh += 1
            for _ in range(self.cfg.group):
                yield InitialState(split="train", index=index)

    def own(self, starts: list[InitialState]) -> list[InitialState]:
        """This rank's share of what `draw` gave, in whole groups."""
        size = self.cfg.group
        share = dist.rank_slice(len(starts) // size)
        return starts[share.start * size : share.stop * size]

    def unseen(self, state: Tensor) -> Tensor:
        """bool (E,), of the initial states int64 (E,): never tried before,
        so that success there is not biased towards those with mixed outcomes.
        """
        return self.tries[state] == 0

    def observe(self, state: Tensor, success: Tensor) -> None:
        """Outcomes bool (E,) of the episodes from the initial states int64 (E,).

        Older tries fade by half at each new visit: the policy that made them is gone.
        """
        seen = state.unique()
        self.tries[seen] *= 0.5
        self.wins[seen] *= 0.5
        self.tries.index_add_(0, state, torch.ones(len(state)))
        self.wins.index_add_(0, state, success.float())

    def state_dict(self) -> dict:
        """For a bitwise resume."""
        return {"tries": self.tries, "wins": self.wins, "fresh": self.fresh}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.tries = state["tries"].clone()
        self.wins = state["wins"].clone()
        self.fresh = state["fresh"]
