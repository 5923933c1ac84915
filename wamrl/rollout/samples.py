"""What training makes of a rollout: imagined frames, the reward's inputs, clips."""

from __future__ import annotations

import torch
from torch import Tensor

from wamrl.models.wam import WAM
from wamrl.rewards.base import RewardInputs
from wamrl.rollout.types import Decisions, Rollout
from wamrl.runtime.log import tracked
from wamrl.types import Clip


@torch.no_grad()
def imagine(
    wam: WAM, chunks: Decisions, steps: int, acted: bool = False, batch: int = 64
) -> Tensor:
    """What `wam` imagines at each decision, from the noise that the actor read:
    float32 [0, 1] (M, F, V, H, W, 3).

    acted: `wam` is what made the decisions, and has not changed since:
    then its features, if kept exactly, may do.
    """
    wam.eval()
    device = next(wam.parameters()).device
    exact = (
        acted and chunks.plan.features.shape[1] > 0 and chunks.plan.features.dtype == torch.float32
    )

    def part(p: Decisions) -> Tensor:
        features = p.plan.features.to(device) if exact else None
        return wam.imagine(p.obs.to(device), p.plan.seed, steps, features).cpu()

    firsts = tracked("  imagining", range(0, len(chunks), batch))
    return torch.cat([part(chunks[slice(i, i + batch)]) for i in firsts])


def reward_inputs(
    rollout: Rollout, imagined: Tensor | None, imagined_offsets: tuple[int, ...]
) -> RewardInputs:
    """The M chunks as a reward reads them; executed frames stay bytes, see `RewardInputs`.

    imagined: float32 (M, F', V, H, W, 3), at `imagined_offsets` control steps after the
    observation; None for a reward that does without: the executed frames stand in.
    """
    chunks = rollout.decisions
    return RewardInputs(
        imagined=chunks.frames if imagined is None else imagined,
        executed=chunks.frames,
        last=chunks.obs.frames[:, -1],
        verifiable=chunks.verifiable,
        success=chunks.success,
        offsets=rollout.frame_offsets,
        imagined_offsets=imagined_offsets,
        executed_steps=chunks.executed,
    )


def success_clips(rollout: Rollout, weight: Tensor, actions: Tensor | None = None) -> Clip:
    """The C chunks of successful episodes as training samples.

    weight: (E,), of an episode's actions. actions: (C, N, A) in the chunks' order, raw units, what
    the actor shall clone; None: what was sampled, exploration noise included.

    Neither is clamped to the environment's bounds. Where the policy pushes to a bound, half of its
    samples lie beyond; clamped, their mean is short of the bound, and a policy that clones itself
    loses some of its speed in every generation (LOG.md, 2026-11-29).
    """
    chunks = rollout.decisions[rollout.success[rollout.decisions.episode]]
    actions = chunks.plan.actions if actions is None else actions
    return Clip(
        frames=chunks.obs.frames,
        future=chunks.frames,
        future_mask=chunks.verifiable,
        proprio=chunks.obs.proprio,
        actions=actions,
        action_mask=chunks.mask,
        weight=weight[chunks.episode],
        text=chunks.obs.text,
        past=chunks.obs.past,
    )


def rare_success_weight(rollout: Rollout) -> Tensor:
    """Per episode (E,): 1.1 - success rate of its initial state in this rollout,
    so that rare successes teach most.
    """
    group = rollout.state
    same = group[:, None] == group
    return 1.1 - (same * rollout.success.float()).sum(1) / same.sum(1)
