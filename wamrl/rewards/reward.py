"""The reward of a chunk: success, the paper's reconstruction, or the bounded composite of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import Tensor, nn

from wamrl.rewards.base import RewardInputs, RunningNorm, SimilarityConfig, reconstructions
from wamrl.rewards.pixels import PixelConfig
from wamrl.runtime.ranges import Steps, check_ranges

CLIP = 3.0  # standard deviations of shaping that count


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What a chunk is rewarded for.

    mode:
    success      1 in the chunk that solves the task (piRL)
    paper        reconstruction only (eq. 11)
    composite    success + shaping, whose total over an episode stays below half the success gap
                 (ours)

    paper_scale, which the paper leaves open; d is the distance of a chunk's imagined frames from
    the executed ones, c that of its copied last frame:
    motion       -min(1, (d + e) / (c + e)), e = running mean of c: error / what had to be imagined
    deviation    -d / running std
    centred      (running mean - d) / running std
    """

    mode: Literal["success", "paper", "composite"] = "composite"
    similarity: SimilarityConfig = field(default_factory=PixelConfig)
    paper_scale: Literal["motion", "deviation", "centred"] = "motion"
    # lambda: bound of |shaping| summed over an episode; < 0.5
    shaping: Annotated[float, Ge(0), Lt(0.5)] = 0.2
    failures_only: bool = False  # shaping on failed episodes only
    scorer: Literal["current", "frozen", "ema"] = "current"  # whose imagination is compared
    # Euler steps of that imagination; 1 is the conditional mean
    imagine_steps: Steps = 1

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "reward")

    @property
    def needs_imagination(self) -> bool:
        """Whether imagined frames are compared at all."""
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
    """Chunk rewards, with the running statistics that normalise them.

    A module, so that these are checkpointed. `.to(device)` says where frames are compared; they are
    brought there `base.ROWS` chunks at a time.
    """

    def __init__(self, cfg: RewardConfig, max_chunks: int):
        super().__init__()
        assert max_chunks >= 1, max_chunks
        self.cfg = cfg
        self.max_chunks = max_chunks
        self.similarity = cfg.similarity.build()
        self.norm = RunningNorm()

    def forward(self, scored: RewardInputs, episode_success: Tensor, episode: Tensor) -> Tensor:
        """The rewards of M chunks, float32 (M,), on the device of `scored`.

        Give whole episodes: the bound of the shaping holds per episode and call.
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
                f"{self.max_chunks}: build the reward with the environment's horizon / "
                "the actions executed per chunk"
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

        A reward is summed and a success ends the episode, so chunks must not earn by lasting. Where
        rest is imagined and kept, d and c are 0: by motion such a chunk costs 1, the most there is,
        and no success is below a resting failure; divided by the deviation it costs nothing, and
        centred it earns.
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
        """Before normalisation, (M,): reconstruction, under composite less that of a copy."""
        reconstructed, copied = self._compared(scored)
        return reconstructed if self.cfg.mode == "paper" else reconstructed - copied

    def _compared(self, scored: RewardInputs) -> Tensor:
        """float32 (2, M): reconstruction by imagination and by the last frame (0 if not needed).

        FloatingPointError, before any statistic has seen it, where one is not finite.
        """
        found = reconstructions(
            self.similarity,
            scored.imagined,
            scored.executed,
            scored.last,
            scored.verifiable,
            device=self.norm.mean.device,
            copy=self.cfg.needs_copy,
        ).to(scored.executed.device)
        if bad := int((~found.isfinite()).any(0).sum()):
            raise FloatingPointError(
                f"reward: the similarity {self.cfg.similarity.name} is not finite at {bad} of "
                f"{found.shape[1]} chunks: try it with `wamrl check RECIPE`"
            )
        return found
