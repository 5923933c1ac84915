"""Recorded episodes, wherever they lie: small columns in memory,
frames fetched by row when somebody needs them.

Rows are numbered over all episodes, one after the other: episode e has S_e control steps, hence S_e
rows of `actions` and S_e + 1 rows of `proprio` and frames (row s is what was seen before action s,
the last one what the last action led to).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wamrl.types import Episode


@dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """One recorded episode without its arrays."""

    length: int  # S, control steps
    success: bool | None  # None: the dataset does not say
    stages: int
    seed: int  # of the start; -1 where it is unknown
    text: str


UNKNOWN = (
    "the dataset does not say which of {n} episodes succeeded: they are unknown, and trained on as "
    "demonstrations; name the column that says it by --success-key"
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a dataset says of itself beside its episodes; kept when it is converted."""

    fps: float | None = None  # control steps per second
    robot_type: str = ""
    state_names: tuple[str, ...] | None = None  # P
    action_names: tuple[str, ...] | None = None  # A
    others: tuple[str, ...] = ()  # columns and cameras that are not read


class Recording(ABC):
    """R = sum(S_e + 1) frame rows, Q = sum(S_e) action rows.

    Example:
        recording = InMemory(collect(cfg))
        recording.frames(np.array([0, 5]))  # uint8 (2, V, H, W, 3)
    """

    facts: list[EpisodeInfo]
    proprio: np.ndarray  # float32 (R, P), raw units
    actions: np.ndarray  # float32 (Q, A) labels, raw units
    executed: np.ndarray  # float32 (Q, A) what was sent to the simulator
    # cameras, in the order of the V axis; names may be unknown: view0, view1, ...
    views: tuple[str, ...]

    image_hw: tuple[int, int]
    origin: Origin = Origin()
    notes: Sequence[str] = ()  # what a user should know, a sentence each

    @abstractmethod
    def frames(self, rows: np.ndarray) -> np.ndarray:
        """The frames at int64 `rows` (n,) in [0, R), in any order,
        repeats allowed: uint8 (n, V, H, W, 3).
        """

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.facts)

    def episode(self, number: int) -> Episode:
        """One episode, in memory."""
        before = int(self._begins[number])
        fact = self.facts[number]
        acts = slice(before, before + fact.length)
        seen = slice(before + number, before + number + fact.length + 1)
        return Episode(
            frames=self.frames(np.arange(seen.start, seen.stop)),
            proprio=self.proprio[seen],
            actions=self.actions[acts],
            executed=self.executed[acts],
            success=fact.success,
            stages=fact.stages,
            seed=fact.seed,
            text=fact.text,
        )

    @cached_property
    def _begins(self) -> np.ndarray:
        """The first action row of each episode, int64 (episodes,)."""
        lengths = np.array([fact.length for fact in self.facts], np.int64)
        return np.cumsum(lengths) - lengths

    @property
    def demonstrations(self) -> list[int]:
        """Numbers of the episodes that did not fail."""
        return [number for number, fact in enumerate(self.facts) if fact.success is not False]

    def episodes(self) -> Iterator[Episode]:
        """One after the other; only one is in memory."""
        return (self.episode(number) for number in range(len(self)))


class InMemory(Recording):
    """Episodes that were just recorded or loaded."""

    def __init__(self, episodes: Sequence[Episode], views: tuple[str, ...] = ()) -> None:
        self.facts = [
            EpisodeInfo(
                length=len(e.actions), success=e.success, stages=e.stages, seed=e.seed, text=e.text
            )
            for e in episodes
        ]
        self.proprio, self.actions, self.executed = (
            np.concatenate([getattr(e, name) for e in episodes])
            for name in ("proprio", "actions", "executed")
        )
        self._frames = np.concatenate([np.ascontiguousarray(e.frames) for e in episodes])
        self.views = views or tuple(f"view{i}" for i in range(self._frames.shape[1]))
        self.image_hw = self._frames.shape[2:4]

    def frames(self, rows: np.ndarray) -> np.ndarray:
        return self._frames.take(rows, axis=0)


def unknown_note(facts: Sequence[EpisodeInfo]) -> list[str]:
    """The sentence on episodes of unknown success; none if there are none."""
    n = sum(fact.success is None for fact in facts)
    return [UNKNOWN.format(n=n)] if n else []
