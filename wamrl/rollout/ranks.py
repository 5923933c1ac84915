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
    seeds = torch.tensor([s.seed for s in rollout.starts], dtype=torch.long)
    single = torch.stack([seeds, rollout.success.long(), rollout.length, rollout.stages], 1)
    table = dist.all_gather(torch.cat([single, rollout.counters], 1))
    lost, started, steps = dist.all_sum(
        torch.tensor([rollout.lost, rollout.started, rollout.steps])
    ).tolist()
    whole = replace(
        rollout,
        starts=[InitialState.of(s) for s in table[:, 0].tolist()],
        lost=lost,
        started=started,
        steps=steps,
        success=table[:, 1].bool(),
        length=table[:, 2],
        stages=table[:, 3],
        counters=table[:, 4:],
    )
    return whole, dist.offset_and_count(len(rollout.starts))[0]
