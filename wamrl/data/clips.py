"""Training samples: `ClipDataset` cuts them out of recorded episodes, `ClipBuffer` keeps the latest of rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from wamrl.types import Clip, Episode

_TENSORS = tuple(f.name for f in fields(Clip) if f.name != "text")


class ClipDataset:
    """All control steps of some episodes as clips; everything lies in one tensor per field, sampling is a gather.

    history_offsets: control steps <= 0, ascending, the last is 0; before the episode's start the first frame repeats.
    frame_offsets: control steps > 0; beyond the episode's end the last frame repeats and `future_mask` is False.
    chunk: actions per clip (the expert's labels); beyond the end they are zero and `action_mask` is False.

    Example: `clip = ClipDataset(load(path), (0,), (4, 8), chunk=8).sample(32, torch.Generator().manual_seed(0))`
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        history_offsets: tuple[int, ...],
        frame_offsets: tuple[int, ...],
        chunk: int,
        *,
        only_success: bool = False,
    ) -> None:
        used = [e for e in episodes if e.success or not only_success]
        if not used:
            raise ValueError(f"none of {len(episodes)} episodes can be used: record more, or use failures as well")
        self.episodes = len(used)
        self._history, self._future = torch.tensor(history_offsets), torch.tensor(frame_offsets, dtype=torch.int64)
        self._ahead = torch.arange(chunk)
        self._frames = torch.from_numpy(np.concatenate([e.frames for e in used]))
        self._proprio = torch.from_numpy(np.concatenate([e.proprio for e in used]))
        self._actions = torch.from_numpy(np.concatenate([e.actions for e in used]))
        self._text = [e.text for e in used]
        lengths = torch.tensor([len(e.actions) for e in used])
        self._episode = torch.repeat_interleave(lengths)  # (Q,) episode of each step
        first = lengths.cumsum(0) - lengths
        self._time = torch.arange(len(self._episode)) - first[self._episode]  # (Q,) control step within the episode
        self._left = lengths[self._episode] - self._time  # (Q,) control steps until the end

    def __len__(self) -> int:
        """Number of control steps, each of which can begin a clip."""
        return len(self._episode)

    @property
    def proprio(self) -> Tensor:
        """float32 (frames, P): every recorded state, for normalisation."""
        return self._proprio

    def sample(self, batch: int, generator: torch.Generator) -> Clip:
        """`batch` clips, uniform over all control steps, with replacement."""
        return self.at(torch.randint(len(self), (batch,), generator=generator))

    def at(self, steps_B: Tensor) -> Clip:
        """The clips that begin at the given control steps, int64 (B,) in [0, len)."""
        episode, left = self._episode[steps_B], self._left[steps_B][:, None]
        now = steps_B + episode  # there is one frame more than actions per episode
        past = torch.maximum(self._history, -self._time[steps_B][:, None])
        action_mask = self._ahead < left
        ahead = (steps_B[:, None] + self._ahead).clamp(max=len(self) - 1)
        return Clip(
            frames=_rows(self._frames, now[:, None] + past),
            future=_rows(self._frames, now[:, None] + torch.minimum(self._future, left)),
            future_mask=self._future <= left,
            proprio=self._proprio[now],
            actions=self._actions[ahead] * action_mask[..., None],
            action_mask=action_mask,
            weight=torch.ones(len(steps_B)),
            text=tuple(self._text[i] for i in episode.tolist()),
        )


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """table[index]; by numpy, which copies whole rows where torch copies single bytes."""
    return torch.from_numpy(table.numpy().take(index.numpy(), axis=0))


class ClipBuffer:
    """The latest `capacity` clips, first in, first out. After a restore the same calls give bitwise the same clips.

    Memory: capacity * (T + F) * V * H * W * 3 bytes, taken as the buffer fills.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity} is not possible: keep at least one clip")
        self.capacity = capacity
        self._next = 0  # place of the next clip
        self._text: list[str] = []
        self._data: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._text)

    def append(self, clip: Clip) -> None:
        """Add the rows of `clip` in order, dropping the oldest ones; shapes must be those of the first append."""
        data = {name: getattr(clip, name).cpu() for name in _TENSORS}
        if not self._data:
            self._data = {k: torch.empty(self.capacity, *v.shape[1:], dtype=v.dtype) for k, v in data.items()}
        self._check(data)
        places = (self._next + torch.arange(len(clip))) % self.capacity
        keep = slice(max(0, len(clip) - self.capacity), None)  # a longer clip would write places twice
        for name, column in data.items():
            self._data[name][places[keep]] = column[keep]
        for place, text in zip(places.tolist(), clip.text, strict=True):
            self._text[place : place + 1] = [text]
        self._next = (self._next + len(clip)) % self.capacity

    def sample(self, batch: int, generator: torch.Generator) -> Clip:
        """`batch` clips, uniform, with replacement; ValueError if there is none yet."""
        if not self._text:
            raise ValueError("no clip was collected yet (no success?): start from a stronger base or roll out more")
        index = torch.randint(len(self), (batch,), generator=generator)
        columns = {name: _rows(column, index) for name, column in self._data.items()}
        return Clip(**columns, text=tuple(self._text[i] for i in index.tolist()))

    def state_dict(self) -> dict:
        filled = {name: column[: len(self)].clone() for name, column in self._data.items()}
        return {"capacity": self.capacity, "next": self._next, "text": list(self._text), "data": filled}

    def load_state_dict(self, state: dict) -> None:
        """Take over a state of a buffer with the same capacity."""
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"the saved buffer holds {state['capacity']} clips, this one {self.capacity}: use the same"
            )
        self._next, self._text = state["next"], list(state["text"])
        self._data = {k: torch.empty(self.capacity, *v.shape[1:], dtype=v.dtype) for k, v in state["data"].items()}
        for name, column in state["data"].items():
            self._data[name][: len(self)] = column

    def _check(self, data: dict[str, Tensor]) -> None:
        for name, column in data.items():
            mine = self._data[name]
            if column.shape[1:] != mine.shape[1:] or column.dtype != mine.dtype:
                found, kept = (f"{t.dtype} {tuple(t.shape[1:])}" for t in (column, mine))
                raise ValueError(
                    f"{name} of the new clips is {found} per clip, the buffer keeps {kept}: use one model spec"
                )
