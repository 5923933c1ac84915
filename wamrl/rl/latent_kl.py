"""The leash of the world model: KL between its features and those of the frozen pretrained model (paper eqs. 8-10).

    KL( N(z, S) || N(z_old, S_old) ) = 1/2 sum_d [ log(S_old / S) + S / S_old + (z - z_old)^2 / S_old - 1 ]
Diagonal covariances per tap: S_old is fixed from the pretrained model, S an exponential average of the current one.
An average carries no gradient, so only the mean term trains; both are logged apart. Zero at initialisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-4  # of the variances, relative to the tap's mean variance


class LatentKL(nn.Module):
    """Statistics per tap and channel, (taps, D) float32."""

    def __init__(self, taps: int, dim: int, ema: float = 0.99):
        super().__init__()
        self.ema = ema
        self.register_buffer("var_old", torch.ones(taps, dim))
        self.register_buffer("var", torch.ones(taps, dim))

    @staticmethod
    def variance(z: Tensor) -> Tensor:
        """Floored variance of features (B, taps, L, D) over samples and tokens -> (taps, D)."""
        var = z.detach().float().var((0, 2), unbiased=False)
        return torch.maximum(var, FLOOR * var.mean(-1, keepdim=True)).clamp(min=1e-12)

    def fit(self, z_old: Tensor) -> None:
        """Fix S_old from the pretrained features (B, taps, L, D) and start S there."""
        self.var_old.copy_(self.variance(z_old))
        self.var.copy_(self.var_old)

    def observe(self, z: Tensor) -> None:
        """S <- ema S + (1 - ema) var(z)"""
        self.var.lerp_(self.variance(z), 1 - self.ema)

    def forward(self, z: Tensor, z_old: Tensor) -> tuple[Tensor, Tensor]:
        """Mean term and variance term per tap, averaged over samples, tokens and channels: (taps,), (taps,)."""
        assert z.shape == z_old.shape, (z.shape, z_old.shape)
        mean = 0.5 * ((z.float() - z_old.detach().float()).square() / self.var_old[:, None]).mean((0, 2, 3))
        ratio = self.var / self.var_old
        return mean, 0.5 * (ratio - ratio.log() - 1).mean(-1)
