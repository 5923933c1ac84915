"""Noise that successive actions of a chunk share, so that exploring pushes a chunk to one side.

Independent noise averages out over a chunk: of N actions the mean moves by 1 / sqrt(N) of what each
moves. Stationary autoregressive noise of first order, along the N actions,

    e_1 = z_1;    e_n = phi e_{n-1} + sqrt(1 - phi^2) z_n,    z standard normal,

has variance 1 at every action, too, and Cov(e_m, e_n) = C_mn = phi^|m - n|. Coloured noise helps
policy gradients in general (Hollenstein et al. 2024, arXiv 2312.11091).

All tensors (..., N, A) float32. The matrices are applied in float64, which neither autocast nor
TF32 touches.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def colour(z: Tensor, phi: float) -> Tensor:
    """Standard normal z -> e."""
    return (_factor(z.shape[-2], phi, z.device) @ z.double()).float()


def whiten(e: Tensor, phi: float) -> tuple[Tensor, Tensor]:
    """e -> z, and the log-density of e given the actions before it less that of z: (N, 1), nats.

    Summed over the first n actions, such densities are that of these n: so what was not executed
    may be left out.
    """
    own = math.sqrt(1 - phi**2)
    z = torch.cat([e[..., :1, :], (e[..., 1:, :] - phi * e[..., :-1, :]) / own], -2)
    change = e.new_full((e.shape[-2], 1), -math.log(own))
    change[0] = 0.0
    return z, change


def covary(x: Tensor, phi: float) -> Tensor:
    """C x."""
    return (_covariance(x.shape[-2], phi, x.device) @ x.double()).float()


@lru_cache
def _covariance(actions: int, phi: float, device: torch.device) -> Tensor:
    """C, float64 (N, N)."""
    place = torch.arange(actions, device=device)
    return phi ** (place[:, None] - place).abs().double()


@lru_cache
def _factor(actions: int, phi: float, device: torch.device) -> Tensor:
    """The lower triangular L with L L^T = C, so that L z is the e above; float64 (N, N)."""
    return torch.linalg.cholesky(_covariance(actions, phi, torch.device("cpu"))).to(device)
