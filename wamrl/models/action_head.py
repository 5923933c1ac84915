"""The built-in actor: a flow-matching transformer over the actions of a chunk.

Block j reads tap j of the world model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from wamrl.models.base import Actor, ActorConfig, WAMSpec
from wamrl.models.layers import Attention, mlp, modulate, sinusoid, zero_
from wamrl.runtime.ranges import Size, check_ranges


@dataclass(frozen=True, kw_only=True)
class ActionHeadConfig(ActorConfig):
    """`width=128` is the CPU size."""

    width: Size = 128
    heads: Size = 4
    blocks_per_tap: Annotated[int, Ge(1), Le(256)] = 1

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.actor")
        if self.width % self.heads:
            raise ValueError(
                f"model.actor: heads={self.heads} must divide width={self.width}; choose others"
            )

    def build(self, spec: WAMSpec, feature_dim: int) -> ActionHead:
        """See `ActorConfig`."""
        self.validate()
        return ActionHead(self, spec, feature_dim)


class ActionBlock(nn.Module):
    """Self-attention over the chunk, cross-attention to one tap, MLP.

    AdaLN by noise level and proprioception.
    """

    def __init__(self, width: int, heads: int, feature_dim: int):
        super().__init__()
        self.own = Attention(width, heads)
        self.cross = Attention(width, heads, feature_dim)
        self.mlp = mlp(width, 4 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feature_norm = nn.LayerNorm(feature_dim)
        self.modulation = zero_(nn.Linear(width, 9 * width))

    def forward(self, x: Tensor, c: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """x (B, N, width), modulated by c (B, width); k and v of the tap, (B, heads, L, ...)."""
        s1, c1, g1, s2, c2, g2, s3, c3, g3 = self.modulation(c).unsqueeze(1).chunk(9, -1)
        h = modulate(self.norm(x), s1, c1)
        x = torch.addcmul(x, 1 + g1, self.own(h, *self.own.keys_values(h)))
        x = torch.addcmul(x, 1 + g2, self.cross(modulate(self.norm(x), s2, c2), k, v))
        return torch.addcmul(x, 1 + g3, self.mlp(modulate(self.norm(x), s3, c3)))


class ActionHead(Actor):
    """The actor described above; `condition` holds what is the same for all denoising steps."""

    def __init__(self, cfg: ActionHeadConfig, spec: WAMSpec, feature_dim: int):
        super().__init__()
        d = cfg.width
        self.per_tap = cfg.blocks_per_tap
        self.width = d
        self.action = nn.Linear(spec.action_dim, d)
        self.position = nn.Parameter(torch.randn(1, spec.chunk, d) * 0.02)
        self.time = mlp(d, d)
        self.proprio = mlp(spec.proprio_dim, d, d)
        self.blocks = nn.ModuleList(
            ActionBlock(d, cfg.heads, feature_dim)
            for _ in range(len(spec.taps) * cfg.blocks_per_tap)
        )
        self.norm = nn.LayerNorm(d)
        self.head = zero_(nn.Linear(d, spec.action_dim))

    def condition(
        self, features: Tensor, proprio: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Embedded proprioception (B, width) and each block's keys and values of its tap."""
        taps = [features[:, i // self.per_tap] for i in range(len(self.blocks))]
        pairs = [
            b.cross.keys_values(b.feature_norm(t)) for b, t in zip(self.blocks, taps, strict=True)
        ]
        return self.proprio(proprio), pairs

    def velocity(self, a: Tensor, sigma: Tensor, condition, repeat: int = 1) -> Tensor:
        """See `Actor`."""
        state, pairs = condition
        if repeat > 1:
            state = state.repeat_interleave(repeat, 0)
            pairs = [
                (k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)) for k, v in pairs
            ]
        c = state + self.time(sinusoid(sigma, self.width))
        x = self.action(a) + self.position
        for block, (k, v) in zip(self.blocks, pairs, strict=True):
            x = block(x, c, k, v)
        return self.head(self.norm(x))
