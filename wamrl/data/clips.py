"""Training samples: `ClipDataset` cuts them out of recorded episodes,
`ClipBuffer` keeps the latest of rollouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from wamrl.data.recording import Recording
from wamrl.runtime import dist
from wamrl.types import Clip, Past

_TENSORS = tuple(f.name for f in fields(Clip) if f.name not in ("text", "past"))
_OF_PAST = "past."  # before the names of its columns


class ClipDataset:
    """All control steps of a recording as clips.
    Frames stay where the recording has them; sampling fetches them.

    history_offsets: control steps <= 0, ascending, the last is 0; before the episode's start the
    first frame repeats. frame_offsets: control steps > 0; beyond the episode's end the last frame
    repeats and `future_mask` is False. chunk: actions per clip (the expert's labels); beyond the
    end they are zero and `action_mask` is False.

    Example: `clip = ClipDataset(open_store(path), (0,), (4, 8), 8).sample(32,
    torch.Generator().manual_seed(0))`
    """

    def __init__(
        self,
        recording: Recording,
        history_offsets: tuple[int, ...],
        frame_offsets: tuple[int, ...],
        chunk: int,
        *,
        past: int = 0,
        only_success: bool = False,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """past: earlier decisions that a clip comes with, see `Clip.past`. numbers: of the episodes
        to use, ascending; None: all.
        """
        asked = range(len(recording)) if numbers is None else numbers
        used = [
            number
            for number in asked
            if not (only_success and recording.facts[number].success is False)
        ]
        if not used:
            raise ValueError(
                f"none of {len(asked)} episodes can be used: record more, or use failures as well"
            )
        self.episodes = len(used)
        self._recording = recording
        self._history = torch.tensor(history_offsets)
        self._future = torch.tensor(frame_offsets, dtype=torch.int64)
        self._ahead = torch.arange(chunk)
        self._back = torch.arange(past, 0, -1) * chunk  # control steps since earlier decisions
        self._proprio = torch.from_numpy(recording.proprio)
        self._actions = torch.from_numpy(recording.actions)
        self._text = [recording.facts[number].text for number in used]
        lengths = torch.tensor([fact.length for fact in recording.facts])
        begins = (lengths.cumsum(0) - lengths)[used]
        lengths = lengths[used]
        # (Q,) which of the used episodes a step belongs to
        self._episode = torch.repeat_interleave(lengths)
        self._time = torch.arange(len(self._episode)) - (lengths.cumsum(0) - lengths)[self._episode]
        # (Q,) control steps until the episode's end
        self._left = lengths[self._episode] - self._time
        self._action_row = begins[self._episode] + self._time  # (Q,)
        # each episode has one frame more
        self._frame_row = self._action_row + torch.tensor(used)[self._episode]

    def __len__(self) -> int:
        """Number of control steps, each of which can begin a clip."""
        return len(self._episode)

    def sample(self, batch: int, generator: torch.Generator, part: slice = slice(None)) -> Clip:
        """`batch` clips, uniform over all control steps, with replacement;
        of these, the ones in `part`.
        """
        return self.at(torch.randint(len(self), (batch,), generator=generator)[part])

    def at(self, steps_B: Tensor) -> Clip:
        """The clips that begin at the given control steps, int64 (B,) in [0, len)."""
        left = self._left[steps_B][:, None]
        now = self._frame_row[steps_B][:, None]
        past = torch.maximum(self._history, -self._time[steps_B][:, None])
        rows = torch.cat([now + past, now + torch.minimum(self._future, left)], 1)
        frames = torch.from_numpy(self._recording.frames(rows.flatten().numpy())).unflatten(
            0, rows.shape
        )
        past, future = frames.split([len(self._history), len(self._future)], 1)
        actions, action_mask = self._chunks(steps_B)
        before = self._past(steps_B) if len(self._back) else None
        return Clip(
            frames=past,
            future=future,
            future_mask=self._future <= left,
            proprio=self._proprio[now[:, 0]],
            actions=actions,
            action_mask=action_mask,
            weight=torch.ones(len(steps_B)),
            text=tuple(self._text[i] for i in self._episode[steps_B].tolist()),
            past=before,
        )

    def _past(self, steps_B: Tensor) -> Past:
        """The decisions before these control steps: one per whole chunk that lies between the
        episode's start and now, of which what was sent to the simulator was executed.
        """
        time = self._time[steps_B][:, None]
        there = self._back <= time  # (B, R)
        since = self._back * there
        rows = self._frame_row[steps_B][:, None] - since
        window = torch.maximum(self._history, (since - time)[..., None])
        seen = (rows[..., None] + window).flatten().numpy()
        frames = torch.from_numpy(self._recording.frames(seen)).unflatten(0, window.shape)
        acts = (self._action_row[steps_B][:, None] - since)[..., None] + self._ahead
        sent = torch.from_numpy(self._recording.executed)
        acts = acts.clamp(max=len(sent) - 1)  # of places that are empty
        return Past(
            frames=frames * there[..., None, None, None, None, None],
            proprio=self._proprio[rows] * there[..., None],
            actions=sent[acts] * there[..., None, None],
            executed=there * len(self._ahead),
        )

    def statistics(self, most: int = 200_000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `Normalization.fit` takes: states (R, P),
        actions (M, N, A), mask (M, N), present states (M, P).

        Every state from which a clip can begin; chunks of up to `most` of them, evenly spaced.
        """
        steps = torch.linspace(0, len(self) - 1, min(most, len(self)), dtype=torch.float64).long()
        return (
            self._proprio[self._frame_row],
            *self._chunks(steps),
            self._proprio[self._frame_row[steps]],
        )

    def _chunks(self, steps_B: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, N, A) from the given control steps on, and their mask (B, N)."""
        mask = self._ahead < self._left[steps_B][:, None]
        rows = (self._action_row[steps_B][:, None] + self._ahead).clamp(max=len(self._actions) - 1)
        return self._actions[rows] * mask[..., None], mask


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """table[index]; by numpy, which copies whole rows where torch copies single bytes."""
    return torch.from_numpy(table.numpy().take(index.numpy(), axis=0))


def _columns(clip: Clip) -> dict[str, Tensor]:
    """Its tensors by name, on the CPU."""
    columns = {name: getattr(clip, name).cpu() for name in _TENSORS}
    if clip.past is not None:
        columns |= {_OF_PAST + name: column.cpu() for name, column in vars(clip.past).items()}
    return columns


def _clip(columns: dict[str, Tensor], text: tuple[str, ...]) -> Clip:
    """The inverse of `_columns`."""
    own = {name: columns[name] for name in _TENSORS}
    rest = columns.keys() - own.keys()
    past = Past(**{name.removeprefix(_OF_PAST): columns[name] for name in rest}) if rest else None
    return Clip(**own, text=text, past=past)


class ClipBuffer:
    """The latest `capacity` clips, first in, first out.
    After a restore the same calls give bitwise the same clips.

    Every rank holds the clips that it has appended, and knows the places of all: those of one
    `append` follow each other in the order of the ranks. `append` and `sample` are called by all
    ranks alike.
    Memory: own clips * (T + F) * V * H * W * 3 bytes, taken as the buffer fills; with a past of R
    decisions R * T frames more.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity} is not possible: keep at least one clip")
        self.capacity = capacity
        self._next = 0  # place of the next clip
        self._text: list[str] = []  # of all ranks
        self._data: dict[str, Tensor] = {}
        self._mine = torch.zeros(capacity, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self._text)

    def append(self, clip: Clip) -> None:
        """Add the rows of `clip` in order, dropping the oldest ones;
        shapes must be those of the first append.
        """
        data = _columns(clip)
        if not self._data:
            self._data = {
                k: torch.empty(self.capacity, *v.shape[1:], dtype=v.dtype) for k, v in data.items()
            }
        self._check(data)
        before, count = dist.offset_and_count(len(clip))
        places = (self._next + torch.arange(count)) % self.capacity
        keep = torch.arange(count) >= count - self.capacity  # more would write places twice
        own = (torch.arange(count) - before).clamp(min=-1)
        own[own >= len(clip)] = -1
        self._mine[places[keep]] = own[keep] >= 0
        chosen = keep & (own >= 0)
        for name, column in data.items():
            self._data[name][places[chosen]] = column[own[chosen]]
        for place, text in zip(places.tolist(), dist.gather_texts(clip.text), strict=True):
            self._text[place : place + 1] = [text]
        self._next = (self._next + count) % self.capacity

    def sample(self, batch: int, generator: torch.Generator, part: slice = slice(None)) -> Clip:
        """`batch` clips, uniform, with replacement; of these, the ones in `part`.
        ValueError if there is none yet.
        """
        if not self._text:
            raise ValueError(
                "no clip was collected yet (no success?): start from a stronger base or roll out "
                "more"
            )
        index = torch.randint(len(self), (batch,), generator=generator)
        columns = {name: self._fetch(column, index)[part] for name, column in self._data.items()}
        return _clip(columns, tuple(self._text[i] for i in index[part].tolist()))

    def _fetch(self, column: Tensor, index: Tensor) -> Tensor:
        """Rows that may lie on other ranks: each sends its own, and zeros for the others."""
        rows = _rows(column, index)
        if dist.world() == 1:
            return rows
        rows[~self._mine[index]] = 0
        return dist.all_sum(rows.byte() if rows.dtype == torch.bool else rows).to(rows.dtype)

    def state_dict(self) -> dict:
        """What all ranks know; `own_state` has the clips."""
        return {"capacity": self.capacity, "next": self._next, "text": list(self._text)}

    def own_state(self) -> dict:
        """This rank's clips and their places."""
        places = self._mine.nonzero().flatten()
        return {
            "places": places,
            "data": {name: column[places] for name, column in self._data.items()},
        }

    def load_state_dict(self, state: dict, parts: Iterable[dict]) -> None:
        """Take over a state of a buffer with the same capacity.
        parts: the `own_state` of all ranks that saved it.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"the saved buffer holds {state['capacity']} clips, this one {self.capacity}: use "
                "the same"
            )
        self._next = state["next"]
        self._text = list(state["text"])
        self._data = {}
        self._mine = torch.zeros(self.capacity, dtype=torch.bool)
        for i, part in enumerate(parts):
            places = part["places"][: len(part["places"]) if i % dist.world() == dist.rank() else 0]
            self._mine[places] = True
            for name, column in part["data"].items():
                if name not in self._data:
                    self._data[name] = torch.empty(
                        self.capacity, *column.shape[1:], dtype=column.dtype
                    )
                self._data[name][places] = column[: len(places)]

    def _check(self, data: dict[str, Tensor]) -> None:
        for name, column in data.items():
            mine = self._data[name]
            if column.shape[1:] != mine.shape[1:] or column.dtype != mine.dtype:
                found, kept = (f"{t.dtype} {tuple(t.shape[1:])}" for t in (column, mine))
                raise ValueError(
                    f"{name} of the new clips is {found} per clip, the buffer keeps {kept}: use "
                    "one model spec"
                )
