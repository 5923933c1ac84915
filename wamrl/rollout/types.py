"""What a rollout is: decisions, what became of them, and the episodes that they made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM, ActionChunk
from wamrl.types import Batch, InitialState, Obs


@dataclass(frozen=True, kw_only=True)
class Decisions(Batch):
    """M decisions of complete episodes, sorted by (episode, step)."""

    obs: Obs
    plan: ActionChunk
    frames: Tensor  # uint8 (M, F, V, H, W, 3) executed
    verifiable: Tensor  # bool (M, F)
    executed: Tensor  # int64 (M,)
    success: Tensor  # bool (M,) in this chunk
    done: Tensor  # bool (M,) the episode ended in this chunk
    episode: Tensor  # int64 (M,) index into the rollout's starts
    step: Tensor  # int64 (M,) control steps before the decision

    @property
    def mask(self) -> Tensor:
        """bool (M, N): actions that were executed."""
        return torch.arange(self.plan.actions.shape[1]) < self.executed[:, None]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """E complete episodes, and the decisions of those that were played here.

    As `collect` returns it, all of this rank; after `gather_outcomes`, the episodes of all ranks.
    """

    decisions: Decisions
    starts: list[InitialState]  # E
    own: range  # which episodes were played on this rank
    success: Tensor  # bool (E,)
    length: Tensor  # int64 (E,) control steps
    stages: Tensor  # int64 (E,)
    counters: Tensor  # int64 (E, C) what the environment counted
    counter_names: tuple[str, ...]  # C of them
    tasks: tuple[str, ...]  # of a suite, see `EnvSpec`; empty: one task
    turns: tuple[int, ...]
    lost: int  # episodes dropped because a worker died
    steps: int  # control steps taken, those of lost episodes included
    horizon: int  # control steps of the longest possible episode
    bounds: tuple[Tensor, Tensor]  # float32 (A,) each, lowest and highest action
    # control steps after the observation at which the pool took `decisions.frames`
    frame_offsets: tuple[int, ...]
    model_idle_s: float  # seconds in which the model waited for the environments
    env_idle_s: float  # seconds in which the workers had nothing to do, their mean

    @property
    def state(self) -> Tensor:
        """int64 (E,): index of each episode's initial state."""
        return torch.tensor([s.index for s in self.starts])

    @property
    def by_task(self) -> dict[str, Tensor]:
        """bool (E,) per task of a suite: which episodes are its; empty where there is one task."""
        if not self.tasks:
            return {}
        task = torch.tensor(self.turns)[self.state % len(self.turns)]
        return {name: task == i for i, name in enumerate(self.tasks) if i in self.turns}

    def noise_free(self, wam: WAM, flow: FlowConfig, batch: int = 64) -> Tensor:
        """The C chunks of successful episodes without their exploration noise: float32 (C, N, A).

        In order, raw units, unclipped, on the CPU. See `WAM.noise_free`: `wam` must not have
        changed since it acted. Where features were not kept,
        each chunk costs a pass of the world model.
        """
        wam.eval()
        device = next(wam.parameters()).device
        found = [torch.zeros(0, *self.decisions.plan.actions.shape[1:])]
        for rows in self.success[self.decisions.episode].nonzero().flatten().split(batch):
            plan, obs = (
                part[rows].to(device) for part in (self.decisions.plan, self.decisions.obs)
            )
            found.append(wam.noise_free(plan, flow, obs).cpu())
        return torch.cat(found)
