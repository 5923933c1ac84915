"""A pool by hand, where no model decides: begin episodes, execute a chunk, wait for it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wamrl.pool.pool import Pool
from wamrl.types import InitialState, Outcome


def begin(pool: Pool, starts: Sequence[InitialState | None], first: int = 0) -> Outcome:
    """One episode per slot first, first + 1, ... (None: that slot is left alone)."""
    fresh = {slot: start for slot, start in enumerate(starts, first) if start is not None}
    n_envs = pool.config.n_envs
    pool.send(torch.zeros(n_envs, 99, pool.spec.action_dim), torch.zeros(n_envs).bool(), fresh)
    return pool.receive()


def step(pool: Pool, actions: Tensor | np.ndarray, active: Tensor | None = None) -> Outcome:
    """A chunk in the active slots (None: in all)."""
    active = torch.ones(pool.config.n_envs, dtype=torch.bool) if active is None else active
    pool.send(torch.as_tensor(actions), active, {})
    return pool.receive()
