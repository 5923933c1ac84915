"""The reward of a chunk: success, the paper's reconstruction, or the bounded composite of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from wamrl.rewards.base import RunningNorm, Scored, SimilarityConfig, reconstruction
from wamrl.rewards.pixels import PixelConfig

CLIP = 3.0  # standard deviations of shaping that count


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """`success`: 1 in the chunk that solves the task (piRL). `paper`: reconstruction only, normalised (eq. 11).
    `composite` (ours): success + shaping, whose total over an episode stays below half the success gap.
    """

    mode: Literal["success", "paper", "composite"] = "composite"
    similarity: SimilarityConfig = field(default_factory=PixelConfig)
    shaping: float = 0.2  # lambda: bound of |shaping| summed over an episode; < 0.5
    failures_only: bool = False  # shaping on failed episodes only
    scorer: Literal["current", "frozen", "ema"] = "current"  # whose imagination is compared
    imagine_steps: int = 1  # Euler steps of the imagination that is scored; 1 is the conditional mean

    def validate(self) -> None:
        if not 0 <= self.shaping < 0.5:
            raise ValueError(f"reward.shaping={self.shaping} must lie in [0, 0.5): shaping may never outweigh success")
        if self.imagine_steps < 1:
            raise ValueError("reward.imagine_steps must be >= 1")

    @property
    def needs_imagination(self) -> bool:
        return self.mode == "paper" or (self.mode == "composite" and self.shaping > 0)

    def build(self, max_chunks: int) -> Reward:
        """max_chunks: the most chunks an episode can have; divides the shaping bound."""
        self.validate()
        return Reward(self, max_chunks)


class Reward(nn.Module):
    """Chunk rewards with the running statistics that normalise them (a module, so that they are checkpointed)."""

    def __init__(self, cfg: RewardConfig, max_chunks: int):
        super().__init__()
        self.cfg, self.max_chunks, self.similarity = cfg, max_chunks, cfg.similarity.build()
        self.norm = RunningNorm()

    def forward(self, scored: Scored, episode_success: Tensor) -> Tensor:
        """float32 (M,). episode_success: bool (M,), whether the chunk's episode ended in success."""
        success = scored.success.float()
        if not self.cfg.needs_imagination:
            return success
        raw, real = self.raw(scored), scored.verifiable.any(1)
        self.norm.update(raw[real])
        z = self.norm(raw) * real
        if self.cfg.mode == "paper":
            return z
        if self.cfg.failures_only:
            z = z * ~episode_success
        return success + self.cfg.shaping * z.clamp(-CLIP, CLIP) / (CLIP * self.max_chunks)

    def raw(self, scored: Scored) -> Tensor:
        """Before normalisation: reconstruction, less that of the copied last frame under composite."""
        r = reconstruction(self.similarity, scored.imagined, scored.executed, scored.verifiable)
        if self.cfg.mode == "paper":
            return r
        copied = scored.last[:, None].expand_as(scored.executed)
        return r - reconstruction(self.similarity, copied, scored.executed, scored.verifiable)


def check_reward(config: SimilarityConfig, frames: tuple[int, ...] = (4, 2, 1, 32, 32, 3)) -> None:
    """Raise ValueError with one sentence naming the fault of a similarity; call it on your own before training."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(frames, generator=g), torch.rand(frames, generator=g)
    name = type(config).__name__
    similarity = config.build()
    same, other = similarity.distance(a, a), similarity.distance(a, b)
    if other.shape != frames[:2]:
        raise ValueError(f"{name}: distance returns shape {tuple(other.shape)}; it must be (B, F) = {frames[:2]}")
    if other.dtype != torch.float32 or not other.isfinite().all() or (other < 0).any():
        raise ValueError(f"{name}: distances must be finite, non-negative float32")
    if same.abs().max() > 1e-4 or (other <= same).any():
        raise ValueError(f"{name}: equal frames must have distance 0 and different frames a larger one")
    if not torch.equal(other, similarity.distance(a, b)):
        raise ValueError(f"{name}: the same frames scored twice differ; make it deterministic (eval mode, fixed seed)")
    order = torch.tensor([2, 0, 3, 1])
    if not torch.allclose(similarity.distance(a[order], b[order]), other[order], atol=1e-5):
        raise ValueError(f"{name}: a row's distance depends on the other rows of the batch")
