"""Chunks that are asked for before they are needed, so that a robot need not stand still.

Around any policy with openpi's `infer` and `reset`; nothing of ours, and no torch, is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np


class ChunkPolicy(Protocol):
    """openpi's `BasePolicy`, such as its `WebsocketClientPolicy`."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """{"actions": (N, A), ..} for an observation."""

    def reset(self) -> None:
        """A new episode begins."""


class AsyncChunkBroker:
    """One action per control step; the next chunk is under way while the present one is executed.

    It is asked for `ahead` control steps before it takes over, from what is seen then, and its
    first `ahead` actions, whose steps have passed by then, are left out. So `execute` actions of
    every chunk are executed; execute + ahead <= N. openpi's `ActionChunkBroker` with ahead = 0
    waits instead.
    """

    def __init__(self, policy: ChunkPolicy, execute: int, ahead: int) -> None:
        """execute: actions per chunk. ahead: control steps that an answer may take."""
        if not 1 <= ahead <= execute:
            raise ValueError(
                f"execute={execute} and ahead={ahead}: 1 <= ahead <= execute is needed"
            )
        self._policy = policy
        self._execute = execute
        self._ahead = ahead
        self._asker = ThreadPoolExecutor(1, "chunks")
        self._more: dict[str, Any] = {}  # what the next episode begins with
        self._begin()

    def _begin(self) -> None:
        self._coming: Future | None = None
        self._chunk: np.ndarray | None = None
        self._next = 0  # action of the chunk

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """{"actions": (A,)} for this control step. ValueError for a chunk that is too short."""
        if self._chunk is None:
            self._take(self._policy.infer({**obs, **self._more}))
        elif self._next == self._execute + self._ahead:
            self._take(self._coming.result())
            self._next = self._ahead
        if self._next == self._execute:
            asked = {**obs, "executed": self._execute}
            self._coming = self._asker.submit(self._policy.infer, asked)
        action = self._chunk[self._next]
        self._next += 1
        return {"actions": action}

    def reset(self) -> None:
        """A new episode begins; an answer on its way is waited for and dropped."""
        if self._coming is not None:
            self._coming.exception()
        self._policy.reset()
        self._more = {"reset": True}
        self._begin()

    def close(self) -> None:
        """End the thread."""
        self._asker.shutdown()

    def _take(self, answer: dict[str, Any]) -> None:
        chunk = answer["actions"]
        if len(chunk) < self._execute + self._ahead:
            raise ValueError(
                f"chunks have {len(chunk)} actions: execute + ahead = "
                f"{self._execute + self._ahead} must not be more"
            )
        self._chunk = chunk
