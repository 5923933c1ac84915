"""The reward of a chunk: success, the paper's reconstruction, or the bounded composite of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from wamrl.rewards.base import RewardInputs, RunningNorm, SimilarityConfig, reconstruction
from wamrl.rewards.pixels import PixelConfig

CLIP = 3.0  # standard deviations of shaping that count
ROWS = 64  # chunks compared at a time


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """`success`: 1 in the chunk that solves the task (piRL). `paper`: reconstruction only (eq. 11).
    `composite` (ours): success + shaping,
    whose total over an episode stays below half the success gap.

    `paper_scale`, which the paper leaves open; d is the distance of a chunk's imagined frames from
    the executed ones, c that of its copied last frame:
    motion       -min(1, (d + e) / (c + e)), e = running mean of c: error / what had to be imagined
    deviation    -d / running std
    centred      (running mean - d) / running std
    """

    mode: Literal["success", "paper", "composite"] = "composite"
    similarity: SimilarityConfig = field(default_factory=PixelConfig)
    paper_scale: Literal["motion", "deviation", "centred"] = "motion"
    shaping: float = 0.2  # lambda: bound of |shaping| summed over an episode; < 0.5
    failures_only: bool = False  # shaping on failed episodes only
    scorer: Literal["current", "frozen", "ema"] = "current"  # whose imagination is compared
    # Euler steps of the imagination that is scored; 1 is the conditional mean
    imagine_steps: int = 1

    def validate(self) -> None:
        if not 0 <= self.shaping < 0.5:
            raise ValueError(
                f"reward.shaping={self.shaping} must lie in [0, 0.5): shaping may never outweigh "
                "success"
            )
        if self.imagine_steps < 1:
            raise ValueError("reward.imagine_steps must be >= 1")

    @property
    def needs_imagination(self) -> bool:
        return self.mode == "paper" or (self.mode == "composite" and self.shaping > 0)

    @property
    def needs_copy(self) -> bool:
        """Whether the copied last frame is compared too."""
        return self.mode == "composite" or self.paper_scale == "motion"

    def build(self, max_chunks: int) -> Reward:
        """max_chunks: the most chunks an episode can have; divides the shaping bound."""
        self.validate()
        return Reward(self, max_chunks)


class Reward(nn.Module):
    """Chunk rewards with the running statistics that normalise
    them (a module, so that they are checkpointed).

    `.to(device)` says where frames are compared; they are brought there ROWS chunks at a time.
    """

    def __init__(self, cfg: RewardConfig, max_chunks: int):
        super().__init__()
        assert max_chunks >= 1, max_chunks
        self.cfg = cfg
        self.max_chunks = max_chunks
        self.similarity = cfg.similarity.build()
        self.norm = RunningNorm()

    def forward(self, scored: RewardInputs, episode_success: Tensor, episode: Tensor) -> Tensor:
        """float32 (M,), on the device of `scored`.
        Give whole episodes: the bound holds per episode and call.

        episode_success: bool (M,), whether the chunk's episode ended in success. episode: int64
        (M,), which it is. ValueError when an episode has more than `max_chunks` chunks, because the
        bound would not hold.
        """
        assert episode_success.shape == episode.shape == scored.success.shape, (
            episode_success.shape,
            episode.shape,
        )
        success = scored.success.float()
        if not self.cfg.needs_imagination:
            return success
        longest = int(episode.unique(return_counts=True)[1].max()) if len(episode) else 0
        if longest > self.max_chunks:
            raise ValueError(
                f"an episode has {longest} chunks, but the shaping is bounded for at most "
                f"{self.max_chunks}: build "
                "the reward with the environment's horizon / the actions executed per chunk"
            )
        real = scored.verifiable.any(1)
        reconstructed, copied = self._compared(scored)
        if self.cfg.mode == "paper":
            return self._paper(reconstructed, copied, real) * real
        raw = reconstructed - copied
        self.norm.update(raw[real])
        z = self.norm(raw) * real
        if self.cfg.failures_only:
            z = z * ~episode_success
        return success + self.cfg.shaping * z.clamp(-CLIP, CLIP) / (CLIP * self.max_chunks)

    def _paper(self, reconstructed: Tensor, copied: Tensor, real: Tensor) -> Tensor:
        """float32 (M,), see `RewardConfig`. Only the centred scale can exceed 0.

        A reward is summed and a success ends the episode: chunks must not earn by lasting.
        Where rest is imagined and kept, d and c are 0.
        By motion such a chunk costs 1, the most there is: no success is below a resting failure.
        Divided by the deviation it costs nothing, and centred it earns.
        """
        if self.cfg.paper_scale == "motion":
            self.norm.update(-copied[real])
            usual = self.norm.mean.clamp(min=1e-8).to(copied.device)
            return -((usual - reconstructed) / (usual - copied)).clamp(max=1).float()
        self.norm.update(reconstructed[real])
        if self.cfg.paper_scale == "deviation":
            return (reconstructed / self.norm.std.to(real.device)).float()
        return self.norm(reconstructed)

    def raw(self, scored: RewardInputs) -> Tensor:
        """Before normalisation: reconstruction,
        less that of the copied last frame under composite.
        """
        reconstructed, copied = self._compared(scored)
        return reconstructed if self.cfg.mode == "paper" else reconstructed - copied

    def _compared(self, scored: RewardInputs) -> Tensor:
        """float32 (2, M): reconstruction by imagination and by the last frame (0 if not needed)."""
        parts = (scored.imagined, scored.executed, scored.last, scored.verifiable)
        device = self.norm.mean.device
        split = zip(*(x.split(ROWS) for x in parts), strict=True)
        pairs = [self._pair(*(x.to(device) for x in row)) for row in split]
        return torch.cat(pairs, 1).to(scored.executed.device)

    def _pair(self, imagined: Tensor, executed: Tensor, last: Tensor, verifiable: Tensor) -> Tensor:
        r = reconstruction(self.similarity, imagined, executed, last, verifiable)
        if not self.cfg.needs_copy:
            return torch.stack([r, torch.zeros_like(r)])
        still = last[:, None].expand_as(executed)
        return torch.stack([r, reconstruction(self.similarity, still, executed, last, verifiable)])


CheckShape = tuple[int, int, int, int, int]


def check_reward(
    config: SimilarityConfig,
    shape: CheckShape = (3, 2, 2, 32, 32),
    device: torch.device | str = "cpu",
) -> None:
    """Raise ValueError with one sentence naming the fault of a similarity;
    call it on your own before training.

    shape: B, F, V, H, W of the random frames; B and F at least 2.
    Give your environment's size if yours depends on it.

    Example: `check_reward(MySimilarityConfig(), shape=(4, 2, 1, 64, 64), device="cuda")`
    """
    if min(shape[:2]) < 2:
        raise ValueError(f"check_reward needs at least 2 chunks and 2 frames, not shape={shape}")
    name = type(config).__name__
    if not isinstance(config.name, str) or not config.name:
        raise ValueError(f"{name}: name must be a short text, for tables")
    g = torch.Generator().manual_seed(0)
    b, f = shape[:2]
    frames = torch.rand(2 * f + 1, b, *shape[2:], 3, generator=g).to(device)
    a = frames[:f].transpose(0, 1)
    other = frames[f:-1].transpose(0, 1)
    last = frames[-1]
    similarity = config.build()
    before = frames.clone()
    distance = similarity.distance(a, other, last)
    if not torch.equal(frames, before):
        raise ValueError(f"{name}: distance changes the frames it is given; work on a copy")
    _check_values(name, distance, similarity.distance(a, a, last), (b, f), frames.device)
    for again in (similarity, config.build()):
        if not torch.equal(distance, again.distance(a, other, last)):
            raise ValueError(
                f"{name}: the same frames scored twice differ; make it deterministic (eval mode, a "
                "seed)"
            )
    tolerance = 1e-3 * distance.max()  # kernels may differ with the batch size

    def differs(x: Tensor, y: Tensor) -> bool:
        return bool((x - y).abs().max() > tolerance)

    order = torch.arange(b).flip(0)[: b - 1]  # another order, and fewer rows
    if differs(similarity.distance(a[order], other[order], last[order]), distance[order]):
        raise ValueError(f"{name}: a row's distance depends on the other rows of the batch")
    for k in range(1, f):
        x = a.clone()
        y = other.clone()
        x[:, k:], y[:, k:] = 1 - x[:, k:], x[:, k:]
        if differs(similarity.distance(x, y, last)[:, :k], distance[:, :k]):
            raise ValueError(
                f"{name}: a frame's distance depends on later frames, which may not be verifiable"
            )


def _check_values(
    name: str, distance: Tensor, same: Tensor, shape: tuple[int, int], device: torch.device
) -> None:
    if distance.shape != shape:
        raise ValueError(
            f"{name}: distance returns shape {tuple(distance.shape)}; it must be (B, F) = {shape}"
        )
    if distance.device != device:
        raise ValueError(
            f"{name}: frames on {device} give distances on {distance.device}; return them on "
            f"{device}"
        )
    if distance.requires_grad:
        raise ValueError(
            f"{name}: the distance carries a gradient; compute it under torch.no_grad()"
        )
    if distance.dtype != torch.float32 or not distance.isfinite().all() or (distance < 0).any():
        raise ValueError(f"{name}: distances must be finite, non-negative float32")
    if (same > 1e-3 * distance.max()).any() or (distance <= same).any():
        raise ValueError(
            f"{name}: equal frames must have distance 0 and different frames a larger one"
        )
