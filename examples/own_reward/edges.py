"""A similarity of your own: do the edges of imagination and reality lie in the same places?

docs/own-reward.md walks through this file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wamrl.config import Config
from wamrl.recipes.point import point
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rewards.base import Similarity, SimilarityConfig
from wamrl.rewards.pixels import PixelConfig


class Edges(Similarity):
    """Mean absolute difference of the frames' slopes, to the right and downwards; in [0, 2]."""

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        difference = (
            a - b
        )  # slopes are linear: those of the difference are the difference of slopes
        right = difference.diff(dim=4).abs()
        down = difference.diff(dim=3).abs()
        return right.mean((2, 3, 4, 5)) + down.mean((2, 3, 4, 5))


@dataclass(frozen=True, kw_only=True)
class EdgesConfig(SimilarityConfig):
    @property
    def name(self) -> str:
        return "edges"

    def build(self) -> Edges:
        return Edges()


def edges() -> Config:
    """The point mass, rewarded by edges; `wamrl compare-rewards` compares them with pixels."""
    cfg = point()
    reward = replace(cfg.train.reward, similarity=EdgesConfig())
    return replace(
        cfg,
        name="edges",
        train=replace(cfg.train, reward=reward),
        rewards=RewardComparisonConfig(similarities=(PixelConfig(), EdgesConfig())),
    )
