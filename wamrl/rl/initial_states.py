"""Where episodes start: fresh training states, and again those whose outcome is undecided."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from wamrl.runtime import dist
from wamrl.types import InitialState


@dataclass(frozen=True, kw_only=True)
class InitialStatesConfig:
    """`group` episodes share an initial state;
    a `revisit` share of the groups goes where outcomes were mixed.
    """

    group: int = 4
    revisit: float = 0.5
    capacity: int = 4096  # remembered initial states

    def validate(self) -> None:
        if self.group < 1 or not 0 <= self.revisit <= 1:
            raise ValueError(
                f"starts: group={self.group} must be >= 1 and revisit={self.revisit} in [0, 1]"
            )


class InitialStateSampler(nn.Module):
    """Counts tries and successes per training state
    (buffers, so that a run resumes where it was).
    """

    def __init__(self, cfg: InitialStatesConfig):
        super().__init__()
        cfg.validate()
        self.cfg = cfg
        self.register_buffer("tries", torch.zeros(cfg.capacity))
        self.register_buffer("wins", torch.zeros(cfg.capacity))
        self.register_buffer("fresh", torch.zeros((), dtype=torch.long))
        self._last: list[bool] = []  # of the last draw's groups: is it fresh?

    def next(
        self, groups: int, generator: torch.Generator, max_steps: int | None = None
    ) -> list[InitialState]:
        """`groups * cfg.group` starts, equal ones adjacent. Revisits are drawn with weight p (1 -
        p) of the estimate p = (wins + 1) / (tries + 2); states that always or never succeeded are
        not revisited. They come first.

        `max_steps`: a budget of control steps decides how many are begun, so there are as many
        groups as could fit (an episode lasts a step at least) and the revisits lie in between: the
        first n groups hold as many as `next(n)` would. Give what is not begun to `put_back`."""
        if max_steps is not None:
            groups = max_steps // self.cfg.group
        mixed = (self.wins > 0) & (self.wins < self.tries)
        p = (self.wins + 1) / (self.tries + 2)
        again = min(int(groups * self.cfg.revisit), int(mixed.sum()))
        chosen = []
        if again:
            chosen = torch.multinomial(mixed * p * (1 - p), again, generator=generator).tolist()
        self._last = _order(again, groups - again, 1.0 if max_steps is None else self.cfg.revisit)
        revisits = iter(chosen)
        chosen = []
        for fresh in self._last:
            chosen.append(int(self.fresh) % self.cfg.capacity if fresh else next(revisits))
            self.fresh += int(fresh)
        return [InitialState(split="train", index=i) for i in chosen for _ in range(self.cfg.group)]

    def own(self, starts: list[InitialState]) -> list[InitialState]:
        """This rank's share of what `next` gave, in whole groups."""
        share = dist.rank_slice(len(starts) // self.cfg.group)
        size = self.cfg.group
        return starts[share.start * size : share.stop * size]

    def put_back(self, starts: list[InitialState]) -> None:
        """The last of the starts that `next` gave were not begun:
        the fresh ones among them come again.
        """
        groups = len(starts) // self.cfg.group
        self.fresh -= sum(self._last[len(self._last) - groups :])

    def unseen(self, starts: list[InitialState]) -> Tensor:
        """bool (len(starts),): never tried before,
        so that success there is not biased towards the undecided.
        """
        return self.tries[[s.index for s in starts]] == 0

    def observe(self, starts: list[InitialState], success: Tensor) -> None:
        """Older tries fade by half at each new visit: the policy that made them is gone."""
        index = torch.tensor([s.index for s in starts])
        seen = index.unique()
        self.tries[seen] *= 0.5
        self.wins[seen] *= 0.5
        self.tries.index_add_(0, index, torch.ones(len(index)))
        self.wins.index_add_(0, index, success.float())


def _order(revisits: int, fresh: int, share: float) -> list[bool]:
    """Which of the groups are fresh: of the first n, min(int(n * share), revisits) are not."""
    counts = [min(int(n * share), revisits) for n in range(revisits + fresh + 1)]
    return [before == after for before, after in pairwise(counts)]
