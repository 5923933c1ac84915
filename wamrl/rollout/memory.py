"""What the episodes that are being played have seen and done, for a model that remembers.

It belongs to the episode, not to the slot in which it is played: it begins with it, and goes with
it. See `EpisodicWorldModel`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wamrl.models.wam import WAM
from wamrl.types import Batch, Obs, Past


class Memory:
    """Of each running episode its past, on the CPU, and the state that the model has made of it.

    Of a model that does not remember, nothing is kept and None is returned.
    """

    def __init__(self, wam: WAM) -> None:
        self._wam = wam
        self._places = wam.spec.past
        self._device = next(wam.parameters()).device
        self._past: dict[int, Past] = {}  # episode -> one row
        self._state: dict[int, Batch] = {}  # episode -> one row

    def copy(self) -> Memory:
        """Another one, in which what follows changes nothing here."""
        other = Memory(self._wam)
        other._past = dict(self._past)
        other._state = dict(self._state)
        return other

    def forget(self, episode: int) -> None:
        """It begins, maybe not for the first time, or is over."""
        self._past.pop(episode, None)
        self._state.pop(episode, None)

    def past(self, episodes: Sequence[int], obs: Obs) -> Past | None:
        """Before the decisions at `obs`, a row for each of these episodes; for `Obs.past`."""
        if not self._places:
            return None
        spec = self._wam.spec
        undone = torch.zeros(1, spec.chunk, spec.action_dim)
        step = Past.of(obs[slice(0, 1)], undone, torch.zeros(1, dtype=torch.long))
        nothing = step.emptied(self._places)
        return Past.cat([self._past.get(episode, nothing) for episode in episodes])

    def state(self, episodes: Sequence[int]) -> Batch | None:
        """What `WAM.act` takes: the state after that past, on the model's device."""
        if not self._places:
            return None
        begun = self._wam.world.begin(1)
        return type(begun).cat([self._state.get(episode, begun) for episode in episodes])

    @torch.no_grad()
    def observe(self, episodes: Sequence[int], obs: Obs, actions: Tensor, executed: Tensor) -> None:
        """One more decision of each of these episodes, all on the CPU.

        obs: what was seen, with `Obs.past`. actions: the chunks, float32 (B, N, A), within the
        bounds; executed: int64 (B,) control steps of them.
        """
        if not self._places:
            return
        step = Past.of(obs, actions, executed)
        past = obs.past.then(step)
        full = obs.past.executed[:, 0] > 0
        if full.any():  # the first decision falls out of the window: the state begins after it
            state = self._wam.recall(past.to(self._device), obs.text)
        else:
            state = self._wam.observe(self.state(episodes), step.to(self._device), obs.text)
        for row, episode in enumerate(episodes):
            self._past[episode] = past[slice(row, row + 1)]
            self._state[episode] = state[slice(row, row + 1)]
