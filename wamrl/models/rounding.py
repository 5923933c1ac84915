"""How far two log-probabilities of the same noisy transitions may lie apart by rounding alone."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig, sde_coefficients, time_grid
from wamrl.models.wam import WAM, ActionChunk

MARGIN = 16.0  # ten times what a trained model's batches of 1 differ by from those of 64


def log_prob_change(new: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """Sum of the elementwise differences new - old over executed actions, float64 (M, J).

    new, old: elementwise log-densities in nats, float32 (M, J, N, A).
    mask: bool (M, N), executed actions.
    Differences first: a sum of 700 such numbers is some hundred nats, of which float32 keeps 1e-4.
    """
    return ((new.double() - old.double()) * mask[:, None, :, None]).sum((-1, -2))


def rounding_tolerance(
    plan: ActionChunk, mask: Tensor, cfg: FlowConfig, unit: float = 2.0**-24
) -> Tensor:
    """What |log_prob_change| of unchanged models may be, float64 (M, J), in nats.

    A transition has (see `flow.sde_coefficients`)
        z = (x' - m) / std,   m = c_x x + c_v v,   log p = -log(std sqrt(2 pi)) - z^2 / 2.
    A relative rounding of `unit` in v, m or x' changes z by at most unit S / std, where
        S = max over the transition of |c_x x| + |x'| + std |z|   >=  |m|, |c_v v|, |x'|,
    log p by |z| times that, and its own rounding by unit |log p|.
    The noise z of an entry is independent of the others and of the rounding.
    So the entries, executed actions times action dims, add up as squares:
        tolerance = MARGIN unit sqrt(sum (|z| S / std)^2 + |log p|^2)
    Correlated noise (`chunk_noise`) is first made white. In all but the first action that enlarges
    the change of z at most (1 + phi) / sqrt(1 - phi^2) times, and adds -log sqrt(1 - phi^2).
    It grows with 1 / std, with |log p| and with the root of the number of dims.
    NaN in the chain gives NaN.
    """
    chain = plan.chain
    grid = time_grid(cfg.steps, cfg.shift)
    table = sde_coefficients(chain.step.flatten(), grid, cfg.noise, cfg.sde).double()
    c_x, _, std, at_mean, *_ = table.view(6, *chain.step.shape, 1, 1).unbind()
    own = math.sqrt(1 - cfg.correlation**2)
    later = (torch.arange(mask.shape[1], device=std.device) > 0)[:, None]
    at_mean = at_mean - later * math.log(own)
    std = torch.where(later, std * own / (1 + cfg.correlation), std)
    x, x_next, log_prob = (part.double() for part in (chain.x, chain.x_next, chain.log_prob))
    z = (2 * (at_mean - log_prob)).clamp(min=0).sqrt()
    size = ((c_x * x).abs() + x_next.abs() + std * z).amax((-1, -2), keepdim=True)
    square = (z * size / std).square() + log_prob.square()
    return MARGIN * unit * (square * mask[:, None, :, None]).sum((-1, -2)).sqrt()


def read_coarsely(wam: WAM, has_features: bool) -> bool:
    """Whether features are computed again by a world model that runs in bfloat16. Its rounding
    depends on the kernels, so on how many rows there are: no two batches need agree.

    has_features: of the plan; then they are the kept ones.
    """
    return wam.compute == torch.bfloat16 and not has_features


@torch.no_grad()
def coarse_unit(wam: WAM, plan: ActionChunk, new: Tensor, mask: Tensor, flow: FlowConfig) -> float:
    """The relative rounding that stands for features of a network in bfloat16: it is measured.

    plan: with float32 features. new: its log-density under them, float32 (M, J, N, A).
    Every feature gets noise of 2^-8 of its token's size, one step of bfloat16. How far that moves
    the log-probability, in units of what `rounding_tolerance` says of a rounding of 1.
    NaN in the chain gives NaN.
    """
    size = plan.features.square().mean(-1, keepdim=True).sqrt()
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(plan.features.shape, generator=draw).to(size.device)
    other = replace(plan, features=plan.features + 2.0**-8 * size * noise)
    moved = log_prob_change(wam.log_prob(other, flow), new, mask)
    whole = rounding_tolerance(plan, mask, flow, unit=1 / MARGIN)
    return (moved.norm() / whole.norm()).item()


def feature_unit(wam: WAM, plan: ActionChunk) -> float:
    """The relative rounding of what the actor reads: float32's, if the features were kept.

    Computed again with other rows beside them, bfloat16 ones are not always the same.
    One falls on the other side of a rounding boundary with chance 2^-24 / 2^-8.
    Then it moves by 2^-8: in the mean of squares 2^-16.
    """
    coarse = torch.bfloat16 in (wam.feature_dtype, wam.compute)
    kept = plan.features.shape[1] > 0
    return 2.0**-16 if coarse and not kept else 2.0**-24


@torch.no_grad()
def drift(
    wam: WAM,
    plan: ActionChunk,
    read: ActionChunk,
    mask: Tensor,
    flow: FlowConfig,
    *,
    coarse: bool,
) -> tuple[Tensor, Tensor]:
    """How far the log-probability of `plan` under `wam` is from the one it was sampled with,
    |log ratio| in nats, float64 (M, J); and how far that is beyond rounding.

    read: `plan` with float32 features. coarse: features that were computed again in bfloat16 may
    differ by its rounding.
    """
    new = wam.log_prob(read, flow)
    off = log_prob_change(new, plan.chain_log_prob, mask).abs()
    unit = feature_unit(wam, plan)
    if coarse and read_coarsely(wam, plan.has_features):
        unit = coarse_unit(wam, read, new, mask, flow)
    return off, off - rounding_tolerance(plan, mask, flow, unit)


def largest(x: Tensor) -> float:
    """The largest entry, NaN if there is one, 0 of none."""
    return x.max().item() if x.numel() else 0.0


def worst_drift(
    wam: WAM, plan: ActionChunk, read: ActionChunk, flow: FlowConfig
) -> tuple[float, float]:
    """The largest of `drift` where all actions are real, and how far it is beyond rounding.

    Features that were computed again in bfloat16 may differ by its rounding.
    """
    mask = torch.ones(plan.actions.shape[:2], dtype=torch.bool, device=plan.actions.device)
    off, excess = drift(wam, plan, read, mask, flow, coarse=True)
    # NaN is no drift that rounding explains
    return largest(off), largest(excess.nan_to_num(nan=float("inf")))
