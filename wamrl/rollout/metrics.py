"""What the log says of a rollout, see docs/metrics.md."""

from __future__ import annotations

import torch
from torch import Tensor

from wamrl.report import counter_metrics
from wamrl.rollout.types import Rollout


def rollout_metrics(rollout: Rollout, fresh: Tensor) -> dict[str, float]:
    """fresh: bool (E,), episodes on initial states that were never tried before."""
    parts = {
        "rollout/success_fresh": rollout.success[fresh],
        "rollout/undecided": undecided(rollout),
    }
    means = {name: part.float().mean().item() for name, part in parts.items() if len(part)}
    means |= counter_metrics(
        rollout.counter_names, rollout.counters.numpy(), rollout.success.numpy()
    )
    return means | {
        "rollout/fresh": float(fresh.sum()),
        "rollout/success": rollout.success.float().mean().item(),
        "rollout/episodes": float(len(rollout.starts)),
        "rollout/length": rollout.length.float().mean().item(),
        "rollout/stages": rollout.stages.float().mean().item(),
        "rollout/feature_mb": rollout.decisions.plan.features.nbytes / 1e6,
        "time/model_idle": rollout.model_idle_s,
        "time/env_idle": rollout.env_idle_s,
        "rollout/lost": float(rollout.lost),
        "rollout/steps": float(rollout.length.sum()),
    }


def undecided(rollout: Rollout) -> Tensor:
    """bool, per initial state with more than one episode: were both outcomes seen?"""
    _, state = torch.tensor([s.index for s in rollout.starts]).unique(return_inverse=True)
    tries = torch.bincount(state)
    wins = torch.bincount(state, rollout.success.float())
    return ((wins > 0) & (wins < tries))[tries > 1]
