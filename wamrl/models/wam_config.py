"""`WAMConfig`: a World-Action model as frozen data, by default the built-in one.

The built-in one is `VideoDiT` and `ActionHead`, at any size. Either half may be yours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.base import ActorConfig, WAMSpec, WorldModelConfig
from wamrl.models.normalize import NormalizeConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM


@dataclass(frozen=True, kw_only=True)
class WAMConfig:
    """`nano` by default: 3.5 M parameters, made for two CPU cores."""

    world: WorldModelConfig = field(default_factory=VideoDiTConfig)
    actor: ActorConfig = field(default_factory=ActionHeadConfig)
    history_offsets: tuple[int, ...] = (0,)  # control steps <= 0
    frame_offsets: tuple[int, ...] = (6, 12)  # imagined frames, control steps > 0
    chunk: int = 12  # actions per chunk
    # bfloat16 halves the feature cache; the actor reads it
    feature_dtype: Literal["float32", "bfloat16"] = "float32"
    # of the world model; bfloat16: GPUs, CPUs with AMX
    compute: Literal["float32", "bfloat16"] = "float32"
    feature_steps: int = 2  # Euler steps down to feature_sigma, where that is < 1
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        self.world.validate()
        self.actor.validate()
        self.normalize.validate()
        if self.chunk < 1 or self.feature_steps < 1:
            raise ValueError(
                f"model: chunk={self.chunk} and feature_steps={self.feature_steps} must be >= 1"
            )

    def build(
        self,
        *,
        views: int,
        image_hw: tuple[int, int],
        action_dim: int,
        proprio_dim: int,
        bounds: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> WAM:
        """The model with fresh weights, from torch's global random state.

        views: how many. bounds: lowest and highest action, A numbers each; None: -1 and 1.
        ValueError of one sentence where the parts do not fit together.
        """
        self.validate()
        spec = WAMSpec(
            views=views,
            image_hw=image_hw,
            history_offsets=self.history_offsets,
            frame_offsets=self.frame_offsets,
            chunk=self.chunk,
            action_dim=action_dim,
            proprio_dim=proprio_dim,
            taps=self.world.tap_names,
            feature_sigma=self.world.feature_sigma,
            feature_steps=self.feature_steps,
        )
        spec.validate()
        low, high = bounds or ([-1.0] * action_dim, [1.0] * action_dim)
        world = self.world.build(spec)
        actor = self.actor.build(spec, world.feature_dim)
        normalize = self.normalize.build(low, high, proprio_dim)
        kept = getattr(torch, self.feature_dtype)
        compute = getattr(torch, self.compute)
        return WAM(world, actor, normalize, kept, compute)
