"""Out of the shared block, into tensors that nobody else writes to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from wamrl.pool.shared_memory import Layout
from wamrl.types import Obs, Outcome


class OutcomeBuffer:
    """Room for one `Outcome` of a pool.
    Whoever passes it again and again saves making thirteen tensors each time.

    `outcome` is the same object with the same tensors always:
    they show what was written last, so copy what is to stay.
    """

    def __init__(self, layout: Layout) -> None:
        batch = layout.n_envs
        fields = layout.fields()
        self._frames, self._obs_frames, self._proprio = (
            np.empty(shape, dtype)
            for dtype, shape in map(fields.get, ("frames", "obs_frames", "obs_proprio"))
        )
        self._facts = np.empty(fields["facts"][1][::-1], np.int64)
        self._flags = np.empty((3, batch), bool)
        self._counters = np.empty(fields["counters"][1], np.int64)
        self._lost = np.empty(batch, bool)
        self._offsets = np.array(layout.frame_offsets)
        self._verifiable = np.empty((batch, len(self._offsets)), bool)
        tensor = torch.from_numpy
        executed, stages = map(tensor, self._facts[:2])
        success, terminated, truncated = map(tensor, self._flags)
        text = (layout.spec.instruction,) * batch
        self.outcome = Outcome(
            frames=tensor(self._frames),
            verifiable=tensor(self._verifiable),
            executed=executed,
            success=success,
            terminated=terminated,
            truncated=truncated,
            stages=stages,
            counters=tensor(self._counters),
            lost=tensor(self._lost),
            obs=Obs(frames=tensor(self._obs_frames), proprio=tensor(self._proprio), text=text),
        )

    def write(
        self, block: Mapping[str, np.ndarray], ran: np.ndarray, seen: np.ndarray, lost: np.ndarray
    ) -> np.ndarray:
        """Copy the rows of slots that executed a chunk (ran) and that have an observation (seen),
        zero in the others.

        All bool (B,); returns the slots whose episodes are over.
        Slots not named may be being written to meanwhile.
        """
        np.multiply(block["facts"].T, ran, out=self._facts)
        self._flags[:] = self._facts[2:5]
        np.multiply(block["counters"], ran[:, None], out=self._counters)
        np.greater_equal(self._facts[0][:, None], self._offsets, out=self._verifiable)
        self._lost[:] = lost
        _copy_rows(self._frames, block["frames"], ran)
        _copy_rows(self._obs_frames, block["obs_frames"], seen)
        _copy_rows(self._proprio, block["obs_proprio"], seen)
        return lost | self._flags[1] | self._flags[2]


def _copy_rows(to: np.ndarray, source: np.ndarray, rows: np.ndarray) -> None:
    """Zero where `rows`, bool (B,), is False."""
    if np.count_nonzero(rows) == len(rows):
        to[...] = source
        return
    to[~rows] = 0
    for row in rows.nonzero()[0].tolist():  # by an index of rows, each would be copied twice
        to[row] = source[row]
