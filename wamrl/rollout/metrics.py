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
        "rollout/mixed_outcome": mixed_outcome(rollout),
    }
    for task, own in rollout.by_task.items():
        parts[f"rollout/task/{task}"] = rollout.success[own]
    means = {name: part.float().mean().item() for name, part in parts.items() if len(part)}
    counters = rollout.counters.numpy()
    means |= counter_metrics(rollout.counter_names, counters, rollout.success.numpy())
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


def mixed_outcome(rollout: Rollout) -> Tensor:
    """bool, per initial state with more than one episode: were both outcomes seen?"""
    _, state = rollout.state.unique(return_inverse=True)
    tries = torch.bincount(state)
    wins = torch.bincount(state, rollout.success.float())
    return ((wins > 0) & (wins < tries))[tries > 1]
