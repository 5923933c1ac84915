"""Action experts: actors whose width is a fraction of the world model's, one block per tap.

`bridge` reads every token of a tap by cross-attention, through a gate per tap (as VLA-Adapter,
arXiv 2509.09372). Its blocks are those of the built-in actor.
`prefix` has one attention, in which the actions attend to the present frame's tokens of the tap
and to each other (as Fast-WAM: the world model's layers are a prefix of keys and values). It reads
nothing of the imagined frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from wamrl.models.action_head import ActionHead, ActionHeadConfig
from wamrl.models.base import Actor, ActorConfig, WAMSpec
from wamrl.models.layers import mlp, sinusoid, zero_
from wamrl.models.video_dit import Block, modulations
from wamrl.runtime.ranges import Size, check_ranges


@dataclass(frozen=True, kw_only=True)
class BridgeConfig(ActorConfig):
    """Cross-attention to each tap; `--model.actor bridge`."""

    fraction: Annotated[float, Gt(0), Le(4)] = 0.5  # of the width of the world model's features
    head_width: Size = 16
    # tanh of it is how much of its tap a fresh block lets in; 0: nothing, as published
    gate: Annotated[float, Ge(0), Le(10)] = 1.0

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.actor")

    def build(self, spec: WAMSpec, feature_dim: int) -> Bridge:
        """See `ActorConfig`."""
        self.validate()
        return Bridge(self, spec, feature_dim)


@dataclass(frozen=True, kw_only=True)
class PrefixConfig(ActorConfig):
    """Attention to the present frame's tokens of each tap; `--model.actor prefix`."""

    fraction: Annotated[float, Gt(0), Le(4)] = 0.5  # of the width of the world model's features
    head_width: Size = 16

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.actor")

    def build(self, spec: WAMSpec, feature_dim: int) -> Prefix:
        """See `ActorConfig`."""
        self.validate()
        return Prefix(self, spec, feature_dim)


def heads_of(fraction: float, head_width: int, feature_dim: int) -> int:
    """How many heads make the width nearest to this fraction of the features', at least one."""
    return max(1, round(fraction * feature_dim / head_width))


class Bridge(ActionHead):
    """The built-in actor at a fraction of the width, with a gate before each tap."""

    def __init__(self, cfg: BridgeConfig, spec: WAMSpec, feature_dim: int):
        heads = heads_of(cfg.fraction, cfg.head_width, feature_dim)
        of_head = ActionHeadConfig(width=heads * cfg.head_width, heads=heads)
        super().__init__(of_head, spec, feature_dim)
        self.gates = nn.Parameter(torch.full((len(spec.taps),), cfg.gate))

    def condition(
        self, features: Tensor, proprio: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """As of the built-in actor; a gate scales the values of its tap."""
        state, pairs = super().condition(features, proprio)
        opened = self.gates.tanh()
        return state, [(k, gate * v) for gate, (k, v) in zip(opened, pairs, strict=True)]


class Prefix(Actor):
    """The actor described above."""

    def __init__(self, cfg: PrefixConfig, spec: WAMSpec, feature_dim: int):
        super().__init__()
        heads = heads_of(cfg.fraction, cfg.head_width, feature_dim)
        d = heads * cfg.head_width
        self.width = d
        self.present = spec.present or slice(None)  # not known: all tokens
        self.action = nn.Linear(spec.action_dim, d)
        self.position = nn.Parameter(torch.randn(1, spec.chunk, d) * 0.02)
        self.time = mlp(d, d)
        self.proprio = mlp(spec.proprio_dim, d, d)
        self.modulation = modulations(d)
        self.taps = nn.ModuleList(TapReader(feature_dim, d, heads) for _ in spec.taps)
        self.blocks = nn.ModuleList(Block(d, heads, False) for _ in spec.taps)
        self.norm = nn.LayerNorm(d)
        self.head = zero_(nn.Linear(d, spec.action_dim))

    def condition(
        self, features: Tensor, proprio: Tensor
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Embedded proprioception (B, width) and each tap's keys and values of the present."""
        tokens = features[:, :, self.present].unbind(1)
        pairs = [read(tap) for read, tap in zip(self.taps, tokens, strict=True)]
        return self.proprio(proprio), pairs

    def velocity(self, a: Tensor, sigma: Tensor, condition, repeat: int = 1) -> Tensor:
        """See `Actor`."""
        state, pairs = condition
        if repeat > 1:
            state = state.repeat_interleave(repeat, 0)
        level = self.modulation(state + self.time(sinusoid(sigma, self.width)))
        x = self.action(a) + self.position
        for block, (k, v) in zip(self.blocks, pairs, strict=True):
            if repeat > 1:
                k = k.repeat_interleave(repeat, 0)
                v = v.repeat_interleave(repeat, 0)
            x, _ = block(x, level.unflatten(1, (6, -1)), (k, v))
        return self.head(self.norm(x))


class TapReader(nn.Module):
    """Keys and values of a tap's tokens, at the actor's width."""

    def __init__(self, feature_dim: int, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(feature_dim)
        self.kv = nn.Linear(feature_dim, 2 * width)
        self.k_norm = nn.LayerNorm(width // heads, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, L, D) -> k and v, (B, heads, L, width / heads) each."""
        k, v = self.kv(self.norm(tokens)).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self.k_norm(k).transpose(1, 2), v.transpose(1, 2)
