"""What a policy update reads, and how an epoch goes through it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl.models.wam import ActionChunk
from wamrl.runtime import dist
from wamrl.types import Batch, Obs


@dataclass(frozen=True, kw_only=True)
class PolicyBatch(Batch):
    """M decisions of a rollout, ready for the policy update."""

    obs: Obs
    plan: ActionChunk
    mask: Tensor  # bool (M, N) actions that were executed
    advantage: Tensor  # float32 (M,) as the loss takes it


def minibatches(own: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, int]]:
    """One epoch over the rows of all ranks, in equal minibatches of about `size` rows.

    own: how many rows are here. Returns for each minibatch our rows in it, int64 (m,), and how many
    it has on all ranks. Drawn for all ranks' rows, so that every rank's generator goes on alike.
    """
    before, count = dist.offset_and_count(own)
    number = max(1, round(count / size))
    found = []
    for rows in torch.randperm(count, generator=generator).tensor_split(number):
        mine = rows[(rows >= before) & (rows < before + own)] - before
        found.append((mine, len(rows)))
    return found
