"""Advantages at chunk level. Rows are chunks, sorted by (episode, step); nothing is padded."""

from __future__ import annotations

import torch
from torch import Tensor

from wamrl.rollout.types import Decisions
from wamrl.runtime import dist


def gae(
    reward: Tensor, value: Tensor, episode: Tensor, bootstrap: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016) over ragged episodes.
    All (M,), float32; episode int64.

    bootstrap: value of the state after the row;
        read only at an episode's last row (0 where the episode is over).
        delta_t = r_t + gamma V_{t+1} - V_t;    A_t = delta_t + gamma lam A_{t+1}
    Returns advantages and returns (= advantages + value).
    """
    advantage = torch.zeros_like(value)
    running = 0.0
    for t in range(len(value) - 1, -1, -1):
        last = t == len(value) - 1 or episode[t + 1] != episode[t]
        v_next = bootstrap[t] if last else value[t + 1]
        running = reward[t] + gamma * v_next - value[t] + (0.0 if last else gamma * lam * running)
        advantage[t] = running
    return advantage, advantage + value


def leave_one_out(value: Tensor, group: Tensor) -> Tensor:
    """Mean of the others of the same group, (E,) float32; 0 where there are none.

    value: float32 (E,), group: int64 (E,). Independent of the row's own value, so a baseline that
    adds no bias (RLOO, arXiv 2402.14740).
    """
    _, index = group.unique(return_inverse=True)
    count = torch.bincount(index)[index]
    total = torch.bincount(index, value.double())[index].to(value.dtype)
    return torch.where(count > 1, (total - value) / (count - 1).clamp(min=1), 0.0)


def group_baseline(advantage: Tensor, decisions: Decisions, group: Tensor) -> Tensor:
    """Per chunk (M,): what the other episodes from its initial state gained over expectation.

    advantage: float32 (M,), of this rank's decisions; group: int64 (E,), the initial state of each
    episode of all ranks.
    """
    gained = torch.zeros(len(group))
    opening = decisions.step == 0
    gained[decisions.episode[opening]] = advantage[opening]
    return leave_one_out(dist.all_sum(gained), group)[decisions.episode]


def control_variate(advantage: Tensor, baseline: Tensor) -> float:
    """How much of `baseline` to take off `advantage`, in [0, 1]: cov / var leaves least variance.

    Both float32 (M,), of this rank's chunks; the share is that of all ranks. Near 1 while the value
    head cannot tell easy initial states from hard ones; near 0 once it can, where a baseline of few
    episodes would only add noise.
    """
    advantage = dist.all_gather(advantage)
    baseline = dist.all_gather(baseline)
    centred = (baseline - baseline.mean()).double()
    variance = centred.square().mean()
    if variance < 1e-12:
        return 0.0
    return float(((advantage.double() * centred).mean() / variance).clamp(0, 1))


def scaled(advantage: Tensor, floor: float, *, centre: bool) -> Tensor:
    """Divided by the standard deviation over the chunks of all ranks, or by `floor`; (M,) float32.

    centre: less their mean, too.
    """
    everywhere = dist.all_gather(advantage)
    mean = everywhere.mean() if centre else 0.0
    return (advantage - mean) / everywhere.std(unbiased=False).clamp(min=floor)


def group_relative(score: Tensor, success: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Group-relative advantages (DeepSeekMath, arXiv 2402.03300), all per episode (E,).

    A = (R - mean of the group) / (std of the group + 1e-6). Groups whose episodes all succeed or
    all fail are dropped: filtered on *success*, since a dense reward always has some variance.
    Returns advantages and which episodes are kept (bool).
    """
    advantage = torch.zeros_like(score)
    keep = torch.zeros(len(group), dtype=torch.bool)
    for g in group.unique():
        rows = group == g
        r = score[rows]
        s = success[rows].float()
        advantage[rows] = (r - r.mean()) / (r.std(unbiased=False) + 1e-6)
        keep[rows] = 0 < s.mean().item() < 1
    return advantage, keep
