"""A dataset of other units or other words is said to be so, dimension by dimension."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.lerobot_made import episode
from wamrl.data.fit import must_fit, oddities
from wamrl.data.recording import InMemory
from wamrl.envs.base import EnvSpec

SPEC = EnvSpec(
    name="made",
    instruction="task 0",
    views=("top",),
    image_hw=(16, 24),
    action_dim=2,
    proprio_dim=3,
    horizon=9,
    action_low=(-10.0, -10.0),
    action_high=(10.0, 10.0),
)


def recording(scale=(1.0, 1.0), **changes) -> InMemory:
    made = [episode(5, 2 * n) for n in range(4)]
    factor = np.array(scale, np.float32)
    return InMemory([replace(e, actions=e.actions * factor, **changes) for e in made])


def test_what_fits_is_not_spoken_of():
    fits = recording()
    must_fit(fits, SPEC, Path("x"))
    assert not oddities(fits, SPEC)
    assert not oddities(recording(), replace(SPEC, action_low=(-9.9, -10.0)))


def test_actions_of_other_units_are_named_by_dimension():
    (said,) = oddities(recording(scale=(1.0, 100.0)), SPEC)
    assert said.startswith("action 1: ") and "-10..10" in said and "other units?" in said
    assert len(oddities(recording(scale=(100.0, 100.0)), SPEC)) == 2


def test_a_few_outside_are_counted():
    found = recording()
    found.actions[3, 0] = 11
    (said,) = oddities(found, SPEC)
    assert said.startswith("action 0: 5.0% of") and "to 11)" in said


def test_other_instructions_are_shown():
    (said,) = oddities(recording(text="push the T"), SPEC)
    assert "4 of 4 episodes say 'push the T' (4), the environment says 'task 0'" in said


def test_unknown_success_is_said():
    unknown = recording(success=None)
    unknown.notes = ["the dataset does not say"]
    assert oddities(unknown, SPEC) == ["the dataset does not say"]


@pytest.mark.parametrize("change", [{"proprio_dim": 4}, {"views": ("a", "b")}])
def test_what_cannot_work_is_refused(change):
    with pytest.raises(ValueError, match=r"x does not fit made: .*choose --views and --state-keys"):
        must_fit(recording(), replace(SPEC, **change), Path("x"))
