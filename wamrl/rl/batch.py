"""What the actor update reads: the decisions of a rollout, with their advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from wamrl.models.wam import ActionChunk
from wamrl.types import Batch, Obs


class Decisions(Protocol):
    """What the update reads of M decisions, sorted by (episode, step); see `rollout.Decisions`."""

    obs: Obs
    plan: ActionChunk
    mask: Tensor  # bool (M, N)
    episode: Tensor  # int64 (M,)
    step: Tensor  # int64 (M,)

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class ActorBatch(Batch):
    """M chunks of a rollout, ready for the update."""

    obs: Obs
    plan: ActionChunk
    mask: Tensor  # bool (M, N) actions that were executed
    inputs: Tensor  # float32 (M, I) what the value head reads
    advantage: Tensor  # float32 (M,) not yet normalised
    value: Tensor  # float32 (M,) what the value head expected, before it has seen these chunks
    returns: Tensor  # float32 (M,) discounted sum of the rewards that followed
    state: Tensor  # int64 (M,) index of the initial state of its episode


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The episodes of all ranks, of which this rank's come after `first` others."""

    state: Tensor  # int64 (E,) index of the initial state
    success: Tensor  # bool (E,)
    first: int
