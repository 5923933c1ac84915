"""The value head: what return to expect, from detached features,
the robot's state and the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ValueConfig:
    width: int = 256

    def build(self, taps: int, feature_dim: int, proprio_dim: int) -> ValueHead:
        return ValueHead(self.width, taps * feature_dim + proprio_dim + 1)


class ValueHead(nn.Module):
    """MLP on token-averaged taps,
    proprioception and elapsed time (a success within a clock depends on the clock).
    """

    def __init__(self, width: int, inputs: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(inputs),
            nn.Linear(inputs, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 1),
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    @staticmethod
    def inputs(features: Tensor, proprio: Tensor, clock: Tensor) -> Tensor:
        """features (M, taps, L, D), proprio (M, P),
        clock (M,) in [0, 1] -> (M, taps * D + P + 1)
        """
        pooled = features.detach().mean(2).flatten(1)
        return torch.cat([pooled, proprio, clock[:, None]], -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, taps * D + P + 1) -> (M,)"""
        return self.net(inputs).squeeze(-1)
