"""The outcomes of all ranks."""

from __future__ import annotations

from dataclasses import replace

import torch

from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.types import InitialState


def gather_outcomes(rollout: Rollout) -> Rollout:
    """With the episodes of all ranks, in their order; decisions stay this rank's.

    `decisions.episode` and `own` count among all episodes. Called by all ranks alike.
    """
    if dist.world() == 1:
        return rollout
    seeds = torch.tensor([s.seed for s in rollout.starts], dtype=torch.long)
    single = torch.stack([seeds, rollout.success.long(), rollout.length, rollout.stages], 1)
    table = dist.all_gather(torch.cat([single, rollout.counters], 1))
    before, _ = dist.offset_and_count(len(rollout.starts))
    lost, steps = dist.all_sum(torch.tensor([rollout.lost, rollout.steps])).tolist()
    return replace(
        rollout,
        decisions=replace(rollout.decisions, episode=before + rollout.decisions.episode),
        starts=[InitialState.of(s) for s in table[:, 0].tolist()],
        own=range(before, before + len(rollout.starts)),
        lost=lost,
        steps=steps,
        success=table[:, 1].bool(),
        length=table[:, 2],
        stages=table[:, 3],
        counters=table[:, 4:],
    )
