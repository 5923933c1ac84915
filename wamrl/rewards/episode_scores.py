"""What is measured on chunks and frames: raw rewards, an episode's score, motion and sharpness.

Everything counts verifiable frames only; a chunk or an episode without one has no score (NaN) and
is left out. How well a score tells success from failure is measured by `wamrl/stats/auc.py`.

Shape letters as in wamrl/types.py; M chunks, E episodes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wamrl.rewards.base import Similarity, reconstructions


@torch.no_grad()
def raw_rewards(
    similarity: Similarity,
    imagined: Tensor,
    executed: Tensor,
    last: Tensor,
    verifiable: Tensor,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Chunk rewards before normalisation, float32 (M,), NaN where no frame is verifiable.

    Frames (M, F, V, H, W, 3), last (M, V, H, W, 3), float32 in [0, 1] or uint8; verifiable bool
    (M, F). They are compared on `device`, some at a time.
    reconstruction  the paper's: imagined against executed
    gain            reconstruction less copy, what the composite reward is made of
    copy            the last frame against executed, a control that imagines nothing
    """
    ours, copied = reconstructions(similarity, imagined, executed, last, verifiable, device=device)
    rewards = {"reconstruction": ours, "gain": ours - copied, "copy": copied}
    nothing = ~verifiable.any(1)
    return {name: reward.masked_fill(nothing, math.nan) for name, reward in rewards.items()}


def episode_mean(score: Tensor, episode: Tensor, use: Tensor, episodes: int) -> Tensor:
    """Mean score of each episode, float64 (E,); NaN where it has none.

    score: (M,), of which those count that are not NaN and that `use`, bool (M,), selects.
    episode: int64 (M,), whose chunk it is.

    A mean, because a sum would tell success from failure by the number of chunks alone.
    """
    use = use & ~score.isnan()
    total = torch.zeros(episodes, dtype=torch.float64)
    total.index_add_(0, episode[use], score[use].double())
    return total / torch.bincount(episode[use], minlength=episodes)  # 0 / 0 is NaN


def early(episode: Tensor, success: Tensor) -> Tensor:
    """bool (M,): the chunks of the controlled comparison.

    episode: int64 (M,), whose chunk it is, in order of time. success: bool (E,).

    Failures last until the clock runs out, so their late chunks have no counterpart among the
    successes, and a success's last chunk shows the solved task. Here each episode counts with
    exactly its first K chunks, none of them its last: K = the 10 % quantile of the number of
    chunks, of the outcome where it is smaller, less one, at least 1. Episodes that ended within K
    chunks are left out. So neither length nor ending can leak the outcome.
    """
    count = torch.bincount(episode, minlength=len(success))
    position = torch.arange(len(episode)) - (count.cumsum(0) - count)[episode]
    counts = [count[kind & (count > 0)].double() for kind in (success, ~success)]
    quantiles = [torch.quantile(c, 0.1, interpolation="lower").item() for c in counts if len(c)]
    k = max(1, int(min(quantiles, default=0)) - 1)
    return (position < k) & (count > k)[episode]


def motion_energy(frames: Tensor, last: Tensor) -> Tensor:
    """Mean squared difference to the last seen frame, (M, F).

    frames (M, F, V, H, W, 3), last (M, V, H, W, 3), both in [0, 1].
    """
    return (frames.float() - last[:, None].float()).square().mean((2, 3, 4, 5))


def sharpness(frames: Tensor) -> Tensor:
    """Variance of the Laplacian of the grey image (Pech-Pacheco et al., ICPR 2000), (M, F).

    frames (M, F, V, H, W, 3) in [0, 1]; the mean over views. Falls under blur; comparable between
    frames of the same scene only.
    """
    grey = frames.float().mean(-1)
    centre = grey[..., 1:-1, 1:-1]
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (around - 4 * centre).var((-2, -1), unbiased=False).mean(-1)


def over_verifiable(x: Tensor, verifiable: Tensor) -> float:
    """Mean of x (M, F) over verifiable frames (M, F); NaN if there is none."""
    return x[verifiable].double().mean().item()
