"""A pool without a model: begin an episode in every slot, execute a chunk in all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wamrl.pool.pool import Pool
from wamrl.types import InitialState, Outcome


def begin(pool: Pool, starts: Sequence[InitialState], chunk: int) -> Outcome:
    """One start per slot; what runs there is dropped."""
    nothing = torch.zeros(len(starts), chunk, pool.spec.action_dim)
    pool.reset()
    pool.send(nothing, torch.zeros(len(starts), dtype=torch.bool), dict(enumerate(starts)))
    return pool.receive()


def step(pool: Pool, actions: Tensor) -> Outcome:
    """A chunk in every slot whose episode runs; float32 (B, N, A)."""
    pool.send(actions, torch.ones(len(actions), dtype=torch.bool), {})
    return pool.receive()
