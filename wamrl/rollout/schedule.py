"""Which episode begins next: in the order of its initial states, as far as a budget allows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch

from wamrl.types import InitialState


def episode_generator(seed: int, start: InitialState, repeat: int) -> torch.Generator:
    """The noise of one episode: a function of the run,
    the start and its repetition, not of the batch it ran in.
    """
    state = np.random.SeedSequence([seed, start.seed, repeat]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


class EpisodeSchedule:
    """Episodes 0, 1, ... and where they start.

    Without a budget every start is played. With one, `group` successive starts are begun together
    or not at all: in order, as long as a whole group still fits if all its episodes last to the
    horizon. What is begun is completed, and how many are begun does not depend on who asks when.
    So the budget is never passed, and where there are starts enough, less than `group * horizon`
    steps of it are left. The source is drawn from only as episodes begin.
    """

    def __init__(
        self,
        source: Iterable[InitialState],
        *,
        horizon: int,
        group: int = 1,
        max_steps: int | None = None,
    ):
        """horizon: control steps of the longest episode. max_steps: the budget, control steps;
        ValueError if it does not hold one group.
        """
        if max_steps is not None and max_steps < group * horizon:
            raise ValueError(
                f"{max_steps} control steps may not hold {group} episodes: "
                f"allow {group * horizon} or more"
            )
        self.starts: list[InitialState] = []  # of the episodes that may begin
        self.repeats: list[int] = []  # of each: how often its start came before
        self.begun = 0
        self._source = iter(source)
        self._horizon = horizon
        self._group = group
        self._max_steps = max_steps
        self._unused = 0  # control steps before the horizon at which finished episodes ended
        self._seen: Counter[InitialState] = Counter()
        self._again: deque[int] = deque()

    def next(self) -> int | None:
        """The episode to begin now; None if there is none, or not before others have ended."""
        if self._again:
            return self._again.popleft()
        if self.begun == len(self.starts):
            self._admit()
        if self.begun == len(self.starts):
            return None
        self.begun += 1
        return self.begun - 1

    def put_back(self, episode: int) -> None:
        """It was lost before it had begun: it comes next."""
        self._again.append(episode)

    def ended(self, length: int) -> None:
        """An episode has ended after so many control steps."""
        self._unused += self._horizon - length

    def generator(self, episode: int, seed: int) -> torch.Generator:
        """A new one with the episode's noise in a run of this seed."""
        return episode_generator(seed, self.starts[episode], self.repeats[episode])

    def _admit(self) -> None:
        """Let one more group begin, if the longest that it can last fits into the budget."""
        longest = (len(self.starts) + self._group) * self._horizon - self._unused
        if self._max_steps is not None and longest > self._max_steps:
            return
        for start in islice(self._source, self._group):
            self.starts.append(start)
            self.repeats.append(self._seen[start])
            self._seen[start] += 1
