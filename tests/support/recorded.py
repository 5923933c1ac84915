"""Real episodes, cut into chunks of 8 steps with frames after 4 and 8,
as a rollout cuts them; for tests of rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wamrl.envs.base import Env
from wamrl.rewards.base import RewardInputs

CHUNK, OFFSETS = 8, (4, 8)
Policy = Callable[[Env], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One episode of S steps, and its C chunks."""

    frames: Tensor  # float32 [0, 1] (S+1, V, H, W, 3)
    success: bool

    @property
    def chunks(self) -> range:
        return range(0, len(self.frames) - 1, CHUNK)

    def seen(self, shift: int = 0) -> Tensor:
        """(C, F, V, H, W, 3): the frames at the offsets,
        `shift` steps later, black where the episode was over.
        """
        rows = [[self._frame(s, s + o + shift) for o in OFFSETS] for s in self.chunks]
        return torch.stack([torch.stack(row) for row in rows])

    def _frame(self, start: int, k: int) -> Tensor:
        return (
            self.frames[max(start, k)] if k < len(self.frames) else torch.zeros_like(self.frames[0])
        )

    def scored(self, imagined: Tensor | None = None) -> RewardInputs:
        """As the loop would score it, had the world model imagined `imagined`,
        or by default what then happened.
        """
        steps = torch.tensor([min(CHUNK, len(self.frames) - 1 - s) for s in self.chunks])
        success = torch.zeros(len(steps), dtype=torch.bool)
        success[-1] = self.success
        return RewardInputs(
            imagined=self.seen() if imagined is None else imagined,
            executed=self.seen(),
            last=self.frames[list(self.chunks)],
            verifiable=torch.tensor(OFFSETS) <= steps[:, None],
            success=success,
            offsets=OFFSETS,
            imagined_offsets=OFFSETS,
            executed_steps=steps,
        )


def record(env: Env, seed: int, policy: Policy) -> Recorded:
    env.reset(seed)
    frames, result = [env.render()], None
    while result is None or not (result.terminated or result.truncated):
        result = env.step(policy(env))
        frames.append(env.render())
    return Recorded(frames=torch.from_numpy(np.stack(frames)).float() / 255, success=result.success)


def together(parts: list[RewardInputs]) -> tuple[RewardInputs, Tensor, Tensor]:
    """Episodes in one batch: (scored, episode's success (M,), episode (M,))."""
    episode = torch.cat([torch.full((len(p.success),), i) for i, p in enumerate(parts)])
    won = torch.cat([p.success.any().expand(len(p.success)) for p in parts])
    joined = {
        k: torch.cat([getattr(p, k) for p in parts])
        for k, v in vars(parts[0]).items()
        if isinstance(v, Tensor)
    }
    return RewardInputs(**joined, offsets=OFFSETS, imagined_offsets=OFFSETS), won, episode
