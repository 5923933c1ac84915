"""What holds the world model near its pretrained self:
the KL between its features and those of the frozen pretrained model (paper eqs. 8-10).

    KL( N(z, S) || N(z_old, S_old) )
        = 1/2 sum_d [ log(S_old / S) + S / S_old + (z - z_old)^2 / S_old - 1 ]
Diagonal covariances per tap: S_old is fixed from the pretrained model, S an exponential average of
the current one. An average carries no gradient, so only the mean term trains; both are logged
apart. Zero at initialisation.
S is a variance per channel, over samples and tokens, so the Gaussian is that of one token's vector:
d runs over the D channels, and tokens are averaged over as samples are. Everything here is the
average over channels; `scale` makes it the sum.
"""

from __future__ import annotations

from typing import Literal

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
    def moments(z: Tensor) -> Tensor:
        """Count, sum and sum of squares of features (B, taps, L, D),
        float64 (3, taps, D): they add up over batches.
        """
        z = z.detach().double()
        count = z.new_full(z.shape[1::2], len(z) * z.shape[2])
        return torch.stack([count, z.sum((0, 2)), z.square().sum((0, 2))])

    @staticmethod
    def variance(moments: Tensor) -> Tensor:
        """Floored variance over samples and tokens, float32 (taps, D)."""
        count, total, squares = moments
        var = (squares / count - (total / count).square()).clamp(min=0)
        return torch.maximum(var, FLOOR * var.mean(-1, keepdim=True)).clamp(min=1e-12).float()

    def fit(self, z_old: Tensor) -> None:
        """Fix S_old from the pretrained features (B, taps, L, D) and start S there."""
        self.var_old.copy_(self.variance(self.moments(z_old)))
        self.var.copy_(self.var_old)

    def observe(self, moments: Tensor) -> None:
        """S <- ema S + (1 - ema) var(z)"""
        self.var.lerp_(self.variance(moments), 1 - self.ema)

    def forward(self, z: Tensor, z_old: Tensor) -> Tensor:
        """The mean term per sample and tap, (B, taps),
        averaged over tokens and channels: all that trains.
        """
        assert z.shape == z_old.shape, (z.shape, z_old.shape)
        return 0.5 * ((z.float() - z_old.detach().float()).square() / self.var_old[:, None]).mean(
            (2, 3)
        )

    def scale(self, reduction: Literal["mean", "sum"]) -> float:
        """What makes the average over channels the reduction:
        1, or D for the paper's sum over d.
        """
        return float(self.var.shape[-1]) if reduction == "sum" else 1.0

    def variance_term(self) -> Tensor:
        """The rest of the KL per tap, (taps,), averaged over channels."""
        ratio = self.var / self.var_old
        return 0.5 * (ratio - ratio.log() - 1).mean(-1)
