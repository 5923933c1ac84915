"""The data that flows between the rooms. Every shape and unit is stated here once.

Shape letters, used as suffixes everywhere (`actions_BNA`):
    B batch   T history frames   F imagined frames   V views   H W pixels   3 RGB
    P proprioception   N actions of a chunk   A action dims   K denoising steps
    D feature width   L tokens
    R remembered decisions
Noise level sigma is in [0, 1]: **1 = noise, 0 = data** (the paper writes t = 1 - sigma).
A *control step* is one call of `Env.step`.
A *chunk* is N actions of which the first `n_exec` are executed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:  # recordings are read without torch, which takes seconds to import
    import torch
    from torch import Tensor

Split = Literal["demo", "heldout", "train", "eval"]
SPLITS: tuple[Split, ...] = ("demo", "heldout", "train", "eval")
_SPLIT_SIZE = 100_000_000
# Three policies from one network, up to 30 points of success apart (LOG.md, 2026-11-27):
# `explore`: Flow-SDE, what the policy gradient trains;
# `ode`: from a random draw; `zero`: from x = 0.
Sampler = Literal["explore", "ode", "zero"]
SAMPLERS: tuple[Sampler, ...] = ("explore", "ode", "zero")


@dataclass(frozen=True, kw_only=True)
class InitialState:
    """One reproducible initial state.

    Splits own disjoint seed ranges, so no state is both trained on and evaluated on.
    `demo`: demonstrations. `heldout`: demonstrations that only measure the world model.
    `train`: online rollouts. `eval`: success.

    Example: `env.reset(InitialState(split="eval", index=7).seed)`
    """

    split: Split
    index: int

    @property
    def seed(self) -> int:
        """For `Env.reset`; no two initial states of any split share one."""
        if self.split not in SPLITS or not 0 <= self.index < _SPLIT_SIZE:
            raise ValueError(
                f"no such start: {self}; use a split of {SPLITS} and 0 <= index < {_SPLIT_SIZE}"
            )
        return SPLITS.index(self.split) * _SPLIT_SIZE + self.index

    @classmethod
    def of(cls, seed: int) -> InitialState:
        """The start whose seed this is."""
        if not 0 <= seed < len(SPLITS) * _SPLIT_SIZE:
            raise ValueError(
                f"no start has the seed {seed}: 0 <= seed < {len(SPLITS) * _SPLIT_SIZE}"
            )
        return cls(split=SPLITS[seed // _SPLIT_SIZE], index=seed % _SPLIT_SIZE)


class Batch:
    """Frozen dataclass of tensors (and tuples of str) that share their first dimension.

    A field may be a `Batch` itself, or None where there is nothing.
    """

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index: Tensor | slice):
        """Select rows; `index` is a bool or int64 tensor, or a slice."""
        return type(self)(**{f.name: _take(getattr(self, f.name), index) for f in fields(self)})

    def to(self, device: torch.device | str):
        """The same with all tensors on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        stay = tuple | None
        return type(self)(
            **{k: v if isinstance(v, stay) else v.to(device) for k, v in values.items()}
        )

    @classmethod
    def cat(cls, parts: list):
        """Concatenate along the batch."""
        return cls(**{f.name: _cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def _take(value, index):
    import torch

    if value is None:
        return None
    if isinstance(index, slice):
        return value[index]
    rows = index.nonzero().flatten() if index.dtype == torch.bool else index
    if isinstance(value, torch.Tensor):
        return rows_of(value, rows)
    return tuple(value[i] for i in rows.tolist()) if isinstance(value, tuple) else value[rows]


def rows_of(value: Tensor, rows: Tensor) -> Tensor:
    """`value[rows]`, rows int64 (m,) >= 0, copied row by row and not byte by byte.

    Of uint8 frames, 18 times faster.
    """
    return value.index_select(0, rows.to(value.device))


def _cat(values: list):
    import torch

    if all(value is None for value in values):
        return None
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return sum(values, ()) if isinstance(values[0], tuple) else type(values[0]).cat(values)


def where(rows: Tensor, yes: Batch, no: Batch):
    """Of each row that of `yes` where `rows`, bool (B,), says so, else that of `no`.

    Both of one class, of tensors only.
    """
    import torch

    chosen = {}
    for f in fields(yes):
        a = getattr(yes, f.name)
        chosen[f.name] = torch.where(_along(rows, a), a, getattr(no, f.name))
    return type(yes)(**chosen)


def _along(rows: Tensor, value: Tensor) -> Tensor:
    """bool (B,) as (B, 1, ..., 1), with as many dimensions as `value` has."""
    return rows.to(value.device).reshape(-1, *[1] * (value.dim() - 1))


@dataclass(frozen=True, kw_only=True)
class Past(Batch):
    """What was seen and done at the last R decisions of an episode, oldest first.

    Recorded, not computed: no weight of a model is in it. Where the episode had fewer decisions,
    the first places are empty: all of them is zero. The instruction is that of the `Obs`.
    """

    frames: Tensor  # uint8 (B, R, T, V, H, W, 3), as each decision saw them
    proprio: Tensor  # float32 (B, R, P)
    actions: Tensor  # float32 (B, R, N, A) that were executed, then zeros
    executed: Tensor  # int64 (B, R) control steps; 0: an empty place

    @classmethod
    def of(cls, obs: Obs, actions: Tensor, executed: Tensor) -> Past:
        """One decision, R = 1: seen `obs`, of the chunk (B, N, A) so many steps were executed."""
        import torch

        done = torch.arange(actions.shape[1], device=executed.device) < executed[:, None]
        step = cls(
            frames=obs.frames[:, None],
            proprio=obs.proprio[:, None],
            actions=actions.masked_fill(~done[..., None], 0.0)[:, None],
            executed=executed[:, None],
        )
        return where(executed > 0, step, step.emptied(1))

    def emptied(self, places: int) -> Past:
        """So many empty places, of the shapes of this."""
        rows = len(self)
        empty = {}
        for f in fields(self):
            value = getattr(self, f.name)
            empty[f.name] = value.new_zeros(rows, places, *value.shape[2:])
        return Past(**empty)

    def then(self, step: Past) -> Past:
        """With one more decision (R = 1), the newest; the oldest goes.

        Rows whose step is empty stay as they are.
        """
        import torch

        moved = {}
        for f in fields(self):
            mine = getattr(self, f.name)
            moved[f.name] = torch.cat([mine[:, 1:], getattr(step, f.name)], 1)
        return where(step.executed[:, 0] > 0, Past(**moved), self)

    def place(self, place: int) -> Past:
        """One of the R decisions, as a past of its own."""
        return Past(**{f.name: getattr(self, f.name)[:, place : place + 1] for f in fields(self)})

    def decision(self, place: int, text: tuple[str, ...]) -> tuple[Obs, Tensor, Tensor]:
        """What was seen, done (B, N, A), and for how many steps (B,) at one of the R places."""
        seen = Obs(frames=self.frames[:, place], proprio=self.proprio[:, place], text=text)
        return seen, self.actions[:, place], self.executed[:, place]


@dataclass(frozen=True, kw_only=True)
class Obs(Batch):
    """What the model sees before a chunk."""

    frames: Tensor  # uint8 (B, T, V, H, W, 3), oldest first, the last is now
    proprio: Tensor  # float32 (B, P), raw units of the environment
    text: tuple[str, ...]  # B instructions
    past: Past | None = None  # earlier decisions of the episode, for a model that remembers


@dataclass(frozen=True, kw_only=True)
class Outcome(Batch):
    """What happened while one chunk was executed in B environments.

    Rows that were not active are all zero or False.
    """

    frames: Tensor  # uint8 (B, F, V, H, W, 3), executed frames at the pool's frame_offsets
    # bool (B, F): offset <= executed, so the frame is real and belongs to this episode
    verifiable: Tensor
    executed: Tensor  # int64 (B,) control steps really executed (< n_exec when the episode ended)
    success: Tensor  # bool (B,) the task was solved in this chunk
    terminated: Tensor  # bool (B,) the task ended (solved or lost for good)
    truncated: Tensor  # bool (B,) the clock ran out
    stages: Tensor  # int64 (B,) sub-goals completed so far in the episode
    counters: Tensor  # int64 (B, C) so far in the episode; named by the environment's spec
    lost: Tensor  # bool (B,) the worker died or hung: the episode does not count
    obs: Obs  # the next observation, (B, ...)

    def __getitem__(self, index):
        raise TypeError("index the fields of an Outcome, not the Outcome")

    @property
    def done(self) -> Tensor:
        """bool (B,): the episode is over, or its worker is."""
        return self.terminated | self.truncated | self.lost


@dataclass(frozen=True, kw_only=True)
class Clip(Batch):
    """Training samples of both losses, from demonstrations or from rollouts."""

    frames: Tensor  # uint8 (B, T, V, H, W, 3) history, the last is now
    future: Tensor  # uint8 (B, F, V, H, W, 3) frames at the model's frame_offsets
    future_mask: Tensor  # bool (B, F) False: beyond the end of the episode
    proprio: Tensor  # float32 (B, P)
    actions: Tensor  # float32 (B, N, A)
    action_mask: Tensor  # bool (B, N) False: beyond the end of the episode or not executed
    weight: Tensor  # float32 (B,) relative weight of the action loss
    text: tuple[str, ...]
    past: Past | None = None  # see `Obs`

    @property
    def obs(self) -> Obs:
        """What was known before the actions."""
        return Obs(frames=self.frames, proprio=self.proprio, text=self.text, past=self.past)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode, every control step; S executed steps.

    numpy, because it lives on disk.
    """

    frames: np.ndarray  # uint8 (S+1, V, H, W, 3); frames[s] is seen before actions[s]
    proprio: np.ndarray  # float32 (S+1, P)
    actions: np.ndarray  # float32 (S, A) label: what the expert meant (without the injected noise)
    executed: np.ndarray  # float32 (S, A) what was sent to the simulator
    success: bool | None  # None: nobody knows
    stages: int
    seed: int
    text: str
