"""The only normalisation: what the model sees of states and actions, and back.

It is saved with the model.

    x = (a - shift) / scale                        one shift and scale per dimension
    bounds      shift, scale = middle and half range of what the environment accepts;
                -1..1 stays as it is, bitwise
    mean_std    mean and standard deviation of the demonstrations
    min_max     middle and half range of the demonstrations
    quantiles   middle and half distance of their 1 % and 99 % quantiles; more where some value of
                the demonstrations would lie beyond +-LIMIT
The flow, its log-probabilities and the losses live in x; environments, demonstrations and rollouts
in the environment's own units. `delta` makes an action relative: the model sees action - present
state, of the state at which the chunk was decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wamrl.runtime.ranges import CountOrZero, check_ranges

Method = Literal["bounds", "mean_std", "min_max", "quantiles"]
# normalised states are clamped to +-LIMIT: a state that no demonstration came near says no more
# than that
LIMIT = 5.0
_SMALLEST = 1e-3  # a dimension that hardly moves is not blown up by more than a thousand


@dataclass(frozen=True, kw_only=True)
class NormalizeConfig:
    """How actions and states are normalised. Dimensions are numbered from 0."""

    actions: Method = "bounds"
    states: Method = "mean_std"
    # action dims that go by the bounds whatever `actions` says, such as grippers
    keep: tuple[CountOrZero, ...] = ()
    # (action dim, state dim): the model sees their difference
    delta: tuple[tuple[CountOrZero, CountOrZero], ...] = ()

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.normalize")
        if self.states == "bounds":
            raise ValueError(
                "model.normalize: states have no bounds; choose mean_std, min_max or quantiles"
            )
        relative = [action for action, _ in self.delta]
        if len(set(relative)) < len(relative) or set(relative) & set(self.keep):
            raise ValueError(
                "model.normalize: name each action dimension once in delta, and not in keep as well"
            )
        if self.delta and self.actions == "bounds":
            raise ValueError(
                "model.normalize: the bounds hold for whole actions; with delta choose "
                "actions=quantiles"
            )

    def build(self, low: Sequence[float], high: Sequence[float], state_dim: int) -> Normalization:
        """A normalisation that has seen no data yet; ValueError where the numbers do not fit.

        low, high: lowest and highest action that the environment accepts, A numbers each.
        """
        self.validate()
        low = [float(x) for x in low]
        high = [float(x) for x in high]
        pairs = list(zip(low, high, strict=True))
        if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in pairs):
            raise ValueError(
                "model.normalize: the action bounds must be finite, each low below its high"
            )
        actions = [*self.keep, *(action for action, _ in self.delta)]
        states = [state for _, state in self.delta]
        if not all(0 <= i < len(low) for i in actions) or not all(
            0 <= i < state_dim for i in states
        ):
            raise ValueError(
                f"model.normalize: keep and delta name dimensions that {len(low)} actions, "
                f"{state_dim} states have not"
            )
        return Normalization(self, torch.tensor(low), torch.tensor(high), state_dim)


class Normalization(nn.Module):
    """Before `fit`, states pass unchanged and actions go by their bounds."""

    def __init__(self, cfg: NormalizeConfig, low: Tensor, high: Tensor, state_dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("state_shift", torch.zeros(state_dim))
        self.register_buffer("state_scale", torch.ones(state_dim))
        self.register_buffer("action_shift", (low + high) / 2)
        self.register_buffer("action_scale", (high - low) / 2)

    @torch.no_grad()
    def fit(self, states: Tensor, actions: Tensor, mask: Tensor, present: Tensor) -> None:
        """Take the statistics of demonstrations, raw units.

        states (R, P): every recorded state. actions (M, N, A), mask (M, N), present (M, P): chunks
        and the state at which each begins.
        """
        shift, scale = _statistics(states, self.cfg.states)
        self.state_shift.copy_(shift)
        self.state_scale.copy_(scale)
        if self.cfg.actions == "bounds":
            return
        shift, scale = _statistics(self._relative(actions, present, -1)[mask], self.cfg.actions)
        free = [i for i in range(actions.shape[-1]) if i not in self.cfg.keep]
        self.action_shift[free] = shift[free].to(states)
        self.action_scale[free] = scale[free].to(states)

    def state(self, proprio: Tensor) -> Tensor:
        """(B, P) raw -> as the model sees it."""
        return ((proprio - self.state_shift) / self.state_scale).clamp(-LIMIT, LIMIT)

    def actions(self, raw: Tensor, proprio: Tensor) -> Tensor:
        """(B, N, A) in the environment's units -> as the model sees it.

        proprio: raw (B, P), of the state at which the chunk begins.
        """
        return (self._relative(raw, proprio, -1) - self.action_shift) / self.action_scale

    def raw_actions(self, x: Tensor, proprio: Tensor) -> Tensor:
        """The inverse of `actions`."""
        return self._relative(x * self.action_scale + self.action_shift, proprio, +1)

    def _relative(self, actions: Tensor, proprio: Tensor, sign: int) -> Tensor:
        if not self.cfg.delta:
            return actions
        out = actions.clone()
        for action, state in self.cfg.delta:
            out[..., action] += sign * proprio[:, None, state]
        return out


def _statistics(rows: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """Shift and scale per column of rows (n, D)."""
    if method == "mean_std":
        return rows.mean(0), rows.std(0, correction=0).clamp(min=_SMALLEST)
    if method == "min_max":
        low = rows.amin(0)
        high = rows.amax(0)
    else:
        low, high = (_quantile(rows, q) for q in (0.01, 0.99))
    shift = (low + high) / 2
    # a dimension that nearly always stands still has no quantiles to speak of: its rare values
    # would be thousands
    farthest = (rows - shift).abs().amax(0) / LIMIT
    return shift, ((high - low) / 2).maximum(farthest).clamp(min=_SMALLEST)


def _quantile(rows: Tensor, q: float) -> Tensor:
    """Of each column, linear between order statistics.

    torch.quantile refuses more than 16 million values.
    """
    ordered = rows.sort(0).values
    place = q * (len(rows) - 1)
    below = int(place)
    return torch.lerp(ordered[below], ordered[min(below + 1, len(rows) - 1)], place - below)
