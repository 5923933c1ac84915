"""The outcomes of all ranks."""

from __future__ import annotations

from dataclasses import replace

import torch

from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.types import InitialState


def everywhere(rollout: Rollout) -> tuple[Rollout, int]:
    """With the episodes' outcomes of all ranks, in their order;
    and how many come before ours. Chunks stay ours.
    """
    if dist.world() == 1:
        return rollout, 0
    names = ("success", "length", "stages", "attempts", "retries")
    seeds = torch.tensor([s.seed for s in rollout.starts], dtype=torch.long)
    table = dist.all_gather(torch.stack([seeds, *(getattr(rollout, n).long() for n in names)], 1))
    columns = dict(zip(names, table.T[1:], strict=True))
    columns["success"] = columns["success"].bool()
    lost, started, steps = dist.all_sum(
        torch.tensor([rollout.lost, rollout.started, rollout.steps])
    ).tolist()
    whole = replace(
        rollout,
        starts=[InitialState.of(s) for s in table[:, 0].tolist()],
        lost=lost,
        started=started,
        steps=steps,
        **columns,
    )
    return whole, dist.offset_and_count(len(rollout.starts))[0]
