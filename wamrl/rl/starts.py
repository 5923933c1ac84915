"""Where episodes start: fresh training states, and again those whose outcome is undecided."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wamrl.types import Start


@dataclass(frozen=True, kw_only=True)
class StartsConfig:
    """`group` episodes share an initial state; a `revisit` share of the groups goes where outcomes were mixed."""

    group: int = 4
    revisit: float = 0.5
    capacity: int = 4096  # remembered initial states

    def validate(self) -> None:
        if self.group < 1 or not 0 <= self.revisit <= 1:
            raise ValueError(f"starts: group={self.group} must be >= 1 and revisit={self.revisit} in [0, 1]")


class Starts(nn.Module):
    """Counts tries and successes per training state (buffers, so that a run resumes where it was)."""

    def __init__(self, cfg: StartsConfig):
        super().__init__()
        cfg.validate()
        self.cfg = cfg
        self.register_buffer("tries", torch.zeros(cfg.capacity))
        self.register_buffer("wins", torch.zeros(cfg.capacity))
        self.register_buffer("fresh", torch.zeros((), dtype=torch.long))

    def next(self, groups: int, generator: torch.Generator) -> list[Start]:
        """`groups * cfg.group` starts, equal ones adjacent. Revisits are drawn with weight p (1 - p) of the estimate
        p = (wins + 1) / (tries + 2); states that always or never succeeded are not revisited."""
        mixed = (self.wins > 0) & (self.wins < self.tries)
        p = (self.wins + 1) / (self.tries + 2)
        again = min(int(groups * self.cfg.revisit), int(mixed.sum()))
        chosen = []
        if again:
            chosen = torch.multinomial(mixed * p * (1 - p), again, generator=generator).tolist()
        for _ in range(groups - again):
            chosen.append(int(self.fresh) % self.cfg.capacity)
            self.fresh += 1
        return [Start(split="train", index=i) for i in chosen for _ in range(self.cfg.group)]

    def unseen(self, starts: list[Start]) -> Tensor:
        """bool (len(starts),): never tried before, so that success there is not biased towards the undecided."""
        return self.tries[[s.index for s in starts]] == 0

    def observe(self, starts: list[Start], success: Tensor) -> None:
        """Older tries fade by half at each new visit: the policy that made them is gone."""
        index = torch.tensor([s.index for s in starts])
        seen = index.unique()
        self.tries[seen] *= 0.5
        self.wins[seen] *= 0.5
        self.tries.index_add_(0, index, torch.ones(len(index)))
        self.wins.index_add_(0, index, success.float())
