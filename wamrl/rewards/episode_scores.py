"""Does a reward tell success from failure,
do imagined frames look like executed ones, is the reward being gamed?

Everything counts verifiable frames only; a chunk or an episode without one has no score (NaN) and
is left out. Shape letters as in wamrl/types.py; M chunks, E episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wamrl.rewards.base import Similarity, reconstruction

VARIANTS = ("reconstruction", "gain", "copy")
CONFIDENCE = 0.95
NAN = float("nan")


@torch.no_grad()
def raw_rewards(
    similarity: Similarity,
    imagined: Tensor,
    executed: Tensor,
    last: Tensor,
    verifiable: Tensor,
    *,
    device: torch.device | str = "cpu",
    batch: int = 64,
) -> dict[str, Tensor]:
    """Chunk rewards before normalisation, float32 (M,), NaN where no frame is verifiable.

    Frames float32 [0, 1] (M, F, V, H, W, 3), last (M, V, H, W, 3), verifiable bool (M, F).
    `reconstruction`: the paper's, imagined against executed; `copy`: the last frame against
    executed, a control that imagines nothing;
    `gain`: the first less the second, what the composite reward is made of.
    """
    ours = []
    copied = []
    for i in range(0, len(imagined), batch):
        u, w, w0, real = (
            x[i : i + batch].to(device) for x in (imagined, executed, last, verifiable)
        )
        ours.append(reconstruction(similarity, u, w, w0, real).cpu())
        copied.append(reconstruction(similarity, w0[:, None].expand_as(w), w, w0, real).cpu())
    r = torch.cat(ours)
    c = torch.cat(copied)
    nothing = ~verifiable.any(1)
    return {k: v.masked_fill(nothing, NAN) for k, v in zip(VARIANTS, (r, r - c, c), strict=True)}


def episode_mean(score: Tensor, episode: Tensor, use: Tensor, episodes: int) -> Tensor:
    """Mean over the chunks that `use` (bool (M,)) selects and that have a score (M,) -> (E,),
    NaN where none is left.

    A mean, because a sum would tell success from failure by the number of chunks alone.
    """
    use = use & ~score.isnan()
    total = torch.zeros(episodes, dtype=torch.float64).index_add_(
        0, episode[use], score[use].double()
    )
    return total / torch.bincount(episode[use], minlength=episodes)  # 0 / 0 is NaN


def early(episode: Tensor, success: Tensor) -> Tensor:
    """bool (M,): chunks of the controlled comparison,
    from each one's episode (M,), in order of time, and success (E,).

    Failures last until the clock runs out, so their late chunks have no counterpart among the
    successes, and a success's last chunk shows the solved task. Here each episode counts with
    exactly its first K chunks, none of them its last: K = the 10 % quantile of the number of
    chunks, of the outcome where it is smaller, less one, at least 1; episodes that ended within K
    chunks are left out. So neither length nor ending can leak the outcome.
    """
    count = torch.bincount(episode, minlength=len(success))
    position = torch.arange(len(episode)) - (count.cumsum(0) - count)[episode]
    counts = [count[kind & (count > 0)].double() for kind in (success, ~success)]
    quick = min(
        (torch.quantile(c, 0.1, interpolation="lower").item() for c in counts if len(c)), default=0
    )
    k = max(1, int(quick) - 1)
    return (position < k) & (count > k)[episode]


@dataclass(frozen=True, kw_only=True)
class AUC:
    """Chance that a success scores above a failure (ties count half),
    with its 95 % interval; NaN for one class.
    """

    value: float
    low: float
    high: float
    successes: int
    failures: int


def auc(score: np.ndarray, success: np.ndarray, cluster: np.ndarray | None = None) -> AUC:
    """AUC = U / (m n) of score (E,) for success (E,), m successes against n failures;
    episodes with score NaN left out.

    Interval: Newcombe's score method 5 (Stat. Med. 25, 2006):
        the theta with (AUC - theta)^2 = z^2 V(theta),
        V = theta (1 - theta) [1 + N (1 - theta) / (2 - theta) + N theta / (1 + theta)] / (m n),
        N = (m + n) / 2 - 1,
    which stays sound at AUC 0 and 1, where DeLong and the bootstrap collapse to a point. `cluster`
    (E,): episodes with the same value (initial state) are not independent; m and n are then divided
    by the design effect, the variance for clustered data (Obuchowski, Biometrics 53, 1997) over
    DeLong's, at least 1. That combination is ours.
    """
    score = np.asarray(score, np.float64)
    success = np.asarray(success, bool)
    group = np.arange(len(score)) if cluster is None else np.asarray(cluster)
    known = ~np.isnan(score)
    score = score[known]
    success = success[known]
    group = group[known]
    m = int(success.sum())
    n = int((~success).sum())
    if not m or not n:
        return AUC(value=NAN, low=NAN, high=NAN, successes=m, failures=n)
    wins = _wins(score, success)
    effect = _design_effect(wins, group[success], group[~success])
    value = float(wins.mean())
    low, high = _newcombe(value, max(1.0, m / effect), max(1.0, n / effect))
    return AUC(value=value, low=low, high=high, successes=m, failures=n)


def _wins(score: np.ndarray, success: np.ndarray) -> np.ndarray:
    """float64 (m, n): 1 where a success scores above a failure, 1/2 where equal."""
    a = score[success][:, None]
    b = score[~success][None]
    return (a > b) + 0.5 * (a == b)


def _newcombe(value: float, m: float, n: float) -> tuple[float, float]:
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf(0.5 + CONFIDENCE / 2)
    extra = (m + n) / 2 - 1

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + extra * (1 - t) / (2 - t) + extra * t / (1 + t)) / (m * n)
        return (value - t) ** 2 - z**2 * variance

    edge = 1e-9  # V is 0 at 0 and at 1, which would be a second root for value 0 or 1
    low = 0.0 if value <= edge else brentq(excess, 0.0, value - edge)
    high = 1.0 if value >= 1 - edge else brentq(excess, value + edge, 1.0)
    return float(low), float(high)


def _design_effect(wins: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Variance of the AUC with clusters over that without;
    wins (m, n), clusters of successes (m,) and failures (n,).

    Where the variances are 0 (perfect separation),
    the mean number of episodes per cluster: each counts once.
    """
    m, n = wins.shape
    theta = wins.mean()
    names, index = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    if len(names) == m + n:
        return 1.0
    a = wins.mean(1) - theta
    b = wins.mean(0) - theta
    plain = (a @ a / max(m - 1, 1)) / m + (b @ b / max(n - 1, 1)) / n
    if plain < 1e-12 or len(names) < 2:
        return (m + n) / len(names)
    sums = [np.bincount(i, x, len(names)) for i, x in ((index[:m], a), (index[m:], b))]
    size = [len(np.unique(i)) for i in (positive, negative)]
    own = [(s @ s) * k / max(k - 1, 1) / c**2 for s, k, c in zip(sums, size, (m, n), strict=True)]
    both = 2 * (sums[0] @ sums[1]) * len(names) / (len(names) - 1) / (m * n)
    return max(1.0, float((sum(own) + both) / plain))


@dataclass(frozen=True, kw_only=True)
class Within:
    """AUC over pairs of one initial state only, so that easy and hard states cannot explain it."""

    value: float
    low: float
    high: float
    groups: int  # initial states with both outcomes


def within_groups(score: np.ndarray, success: np.ndarray, group: np.ndarray) -> Within:
    """Won pairs / pairs, over pairs of a success and a failure in the same group (E,);
    2 value - 1 is Somers' D.

    Interval: percentile bootstrap over groups, 2,000 resamples, fixed seed;
    NaN for fewer than two mixed groups.
    """
    from scipy.stats import bootstrap

    score = np.asarray(score, np.float64)
    success = np.asarray(success, bool)
    group = np.asarray(group)
    won = []
    pairs = []
    for name in np.unique(group[~np.isnan(score)]):
        mine = (group == name) & ~np.isnan(score)
        wins = _wins(score[mine], success[mine])
        if wins.size:
            won.append(wins.sum())
            pairs.append(wins.size)
    if not pairs:
        return Within(value=NAN, low=NAN, high=NAN, groups=0)
    value = float(np.sum(won) / np.sum(pairs))
    low = NAN
    high = NAN
    if len(pairs) > 1:
        ends = bootstrap(
            (np.array(won), np.array(pairs, float)),
            lambda w, p, axis: w.sum(axis) / p.sum(axis),
            paired=True,
            n_resamples=2000,
            method="percentile",
            confidence_level=CONFIDENCE,
            rng=np.random.default_rng(0),
        ).confidence_interval
        low = float(ends.low)
        high = float(ends.high)
    return Within(value=value, low=low, high=high, groups=len(pairs))


def motion_energy(frames: Tensor, last: Tensor) -> Tensor:
    """Mean squared difference to the last seen frame, [0, 1] pixels:
    (M, F, V, H, W, 3), (M, V, H, W, 3) -> (M, F).
    """
    return (frames.float() - last[:, None].float()).square().mean((2, 3, 4, 5))


def sharpness(frames: Tensor) -> Tensor:
    """Variance of the Laplacian of the grey image (Pech-Pacheco et al., ICPR 2000),
    mean over views -> (M, F).

    Frames (M, F, V, H, W, 3), [0, 1]. Falls under blur;
    comparable between frames of the same scene only.
    """
    grey = frames.float().mean(-1)
    centre = grey[..., 1:-1, 1:-1]
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (around - 4 * centre).var((-2, -1), unbiased=False).mean(-1)


def over_verifiable(x: Tensor, verifiable: Tensor) -> float:
    """Mean of x (M, F) over verifiable frames (M, F); NaN if there is none."""
    return x[verifiable].double().mean().item()


def chance_of_rise(values: list[float]) -> float:
    """One-sided p-value of a rise:
    t-test of the least-squares slope over equally spaced values; at least 3.
    """
    from scipy.stats import linregress

    x = np.asarray(values, np.float64)
    if np.ptp(x) == 0:
        return 1.0
    return float(linregress(np.arange(len(x)), x, alternative="greater").pvalue)


def chance_of_fall(rates: list[float], n: list[float]) -> float:
    """One-sided p-value of falling proportions:
    Cochran-Armitage trend test on equally spaced `rates` of n trials.

    z = sum_i n_i (r_i - p)(t_i - mean t) / sqrt(p (1 - p) sum_i n_i (t_i - mean t)^2),
    p and mean t weighted by n.
    """
    from scipy.stats import norm

    rate = np.asarray(rates, np.float64)
    weight = np.asarray(n, np.float64)
    t = np.arange(len(rates))
    p = np.average(rate, weights=weight)
    centre = np.average(t, weights=weight)
    if not 0 < p < 1:
        return 1.0
    spread = p * (1 - p) * (weight * (t - centre) ** 2).sum()
    return float(norm.cdf((weight * (rate - p) * (t - centre)).sum() / np.sqrt(spread)))
