"""`WAMConfig`: a World-Action model as frozen data, by default the built-in one.

The built-in one is `VideoDiT` and `ActionHead`, at any size. Either half may be yours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.base import ActorConfig, WAMSpec, WorldModelConfig
from wamrl.models.normalize import NormalizeConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM
from wamrl.runtime.ranges import Steps, check_ranges


@dataclass(frozen=True, kw_only=True)
class WAMConfig:
    """`nano` by default: 3.5 M parameters, made for two CPU cores."""

    world: WorldModelConfig = field(default_factory=VideoDiTConfig)
    actor: ActorConfig = field(default_factory=ActionHeadConfig)
    history_offsets: tuple[Annotated[int, Ge(-10_000), Le(0)], ...] = (0,)  # control steps <= 0
    # imagined frames, control steps > 0
    frame_offsets: tuple[Annotated[int, Ge(1), Le(10_000)], ...] = (6, 12)
    chunk: Annotated[int, Ge(1), Le(10_000)] = 12  # actions per chunk
    # bfloat16 halves the feature cache; the actor reads it
    feature_dtype: Literal["float32", "bfloat16"] = "float32"
    # of the world model; bfloat16: GPUs, CPUs with AMX
    compute: Literal["float32", "bfloat16"] = "float32"
    # Euler steps down to feature_sigma, where that is < 1
    feature_steps: Steps = 2
    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model")
        if not self.frame_offsets:
            raise ValueError("model.frame_offsets is empty: name the control steps to imagine")
        self.world.validate()
        self.actor.validate()
        self.normalize.validate()

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
            past=self.world.past,
        )
        spec.validate()
        low, high = bounds or ([-1.0] * action_dim, [1.0] * action_dim)
        world = self.world.build(spec)
        actor = self.actor.build(replace(spec, present=world.present), world.feature_dim)
        normalize = self.normalize.build(low, high, proprio_dim)
        kept = getattr(torch, self.feature_dtype)
        compute = getattr(torch, self.compute)
        return WAM(world, actor, normalize, kept, compute)
