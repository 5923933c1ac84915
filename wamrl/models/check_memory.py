"""Of `check_wam`: is the state of an `EpisodicWorldModel` what its definition says?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import worst_drift
from wamrl.models.wam import WAM
from wamrl.types import Batch, Obs, Past


def require(fine: bool, sentence: str) -> None:
    """ValueError of that sentence where it is not fine."""
    if not fine:
        raise ValueError(sentence)


def near(a: Tensor, b: Tensor) -> bool:
    """Equal but for kernels that add in another order."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1e-3, rtol=1e-3)


def probe_past(wam: WAM, rows: int, g: torch.Generator) -> Past:
    """Random: of no decision, of some, and so on to as many as are remembered.

    A chunk may be executed in part. Empty places are zero, as they are in rollouts.
    """
    s = wam.spec
    count = torch.linspace(0, s.past, rows).ceil()
    there = torch.arange(s.past, 0, -1) <= count[:, None]
    executed = torch.randint(1, s.chunk + 1, there.shape, generator=g) * there
    shape = (rows, s.past, len(s.history_offsets), s.views, *s.image_hw, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
    actions = torch.rand(rows, s.past, s.chunk, s.action_dim, generator=g) * 2 - 1
    done = torch.arange(s.chunk) < executed[..., None]
    return Past(
        frames=frames * there.view(rows, -1, 1, 1, 1, 1, 1),
        proprio=torch.randn(rows, s.past, s.proprio_dim, generator=g) * there[..., None],
        actions=actions * done[..., None],
        executed=executed,
    )


@torch.no_grad()
def check_memory(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """ValueError names the first fault.

    What is checked: that every episode begins alike; that observing, recalling and encoding leave
    a state as it is; that a row depends on no other row; that the state which was observed decision
    by decision is the one that is recalled, up to the log-probability of an action.

    obs: with a past. seeds: int64 (B,).
    """
    _check_begin(wam, len(obs))
    _check_functional(wam, obs, seeds)
    _check_rows(wam, obs, seeds)
    _check_recall(wam, obs, seeds)


def _check_begin(wam: WAM, rows: int) -> None:
    state = wam.world.begin(rows)
    require(
        isinstance(state, Batch)
        and all(isinstance(part, Tensor) and len(part) == rows for part in _parts(state)),
        f"begin({rows}) must give a Batch of tensors with {rows} rows each",
    )
    for other in (wam.world.begin(rows), wam.world.begin(1)):
        alike = [(a == b).all() for a, b in zip(_parts(state), _parts(other), strict=True)]
        require(
            all(alike),
            "begin: episodes begin with different states; nothing was seen yet, so all rows must "
            "be alike",
        )


def _check_functional(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """Whatever is done with a state leaves it as it is."""

    def check(state: Batch, use: Callable[[], Any]) -> Any:
        before = [part.clone() for part in _parts(state)]
        made = use()
        require(
            all(torch.equal(a, b) for a, b in zip(_parts(state), before, strict=True)),
            "observe or encode changes the state that it is given: return a new one, and leave the "
            "old one as it is",
        )
        return made

    state = wam.world.begin(len(obs))
    for place in range(wam.spec.past):
        step = obs.past.place(place)
        state = check(state, partial(wam.observe, state, step, obs.text))
    check(state, lambda: wam.features(wam.encode(obs, state), seeds))


def _check_rows(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """A row that is observed alone is what it is among others."""
    every = wam.features(wam.encode(obs, _observed(wam, obs)), seeds)
    for row in range(len(obs)):
        one = obs[slice(row, row + 1)]
        state = _observed(wam, one)
        alone = wam.features(wam.encode(one, state), seeds[row : row + 1])
        require(
            near(alone, every[row : row + 1]),
            "observe: the state of a row depends on the other rows of the batch",
        )


def _check_recall(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """What acts is scored on features of a state that is recalled."""
    sentence = (
        "recall gives another state than begin and one observe per decision: features that are "
        "computed again would not be those that acted"
    )
    state = _observed(wam, obs)
    kept = wam.features(wam.encode(obs, state), seeds)
    require(near(wam.features(wam.encode(obs), seeds), kept), sentence)
    flow = FlowConfig(steps=3, noisy="all")
    generators = [torch.Generator().manual_seed(i) for i in range(len(obs))]
    plan = wam.act(obs, seeds, flow, generators, "explore", state).drop_features()
    off, excess = worst_drift(wam, plan, wam.with_features(plan, obs), flow)
    require(excess <= 0, f"{sentence} (the log-probability drifts by {off:.1e})")


def _observed(wam: WAM, obs: Obs) -> Batch:
    """The state after the past, by one `observe` per decision."""
    state = wam.world.begin(len(obs))
    for place in range(wam.spec.past):
        state = wam.observe(state, obs.past.place(place), obs.text)
    return state


def _parts(state: Batch) -> list[Tensor]:
    return [getattr(state, f.name) for f in fields(state)]
