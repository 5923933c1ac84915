"""SFT on a dataset alone: the environment's spec is the dataset's."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import SMALL, refused, run_of, wamrl
from tests.support.lerobot_made import episode, make_foreign, rename_features
from tests.support.odd_sets import pushes
from wamrl.data.dataset_env import DatasetConfig
from wamrl.data.keys import DataKeys
from wamrl.data.lerobot import write

MODEL = ("--model.world.width", "32", "--model.world.depth", "2", "--model.world.heads", "2")
MODEL += ("--model.world.taps", "1", "--model.actor.width", "32")
KEYS = DataKeys(state_keys=("state",), rename=("cam_high=front",))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """As a real robot's: success unknown, an action that never moves, names of its own."""
    made = [episode(12, n) for n in range(4)]
    for e in made:
        e.actions[:, 1] = 3.0
    write(tmp_path / "real", made, views=("cam_high",), fps=10, video=False)
    make_foreign(tmp_path / "real")
    rename_features(tmp_path / "real", observation__state="state")
    return tmp_path / "real"


def test_the_spec_comes_from_the_set(real: Path):
    spec = DatasetConfig(path=str(real), keys=KEYS, image_size=16).build().spec
    assert spec.views == ("front",) and spec.image_hw == (16, 16) and spec.horizon == 11
    assert (spec.action_dim, spec.proprio_dim, spec.instruction) == (2, 3, "task 0")
    low, high = spec.bounds
    assert (low < high).all() and low[1] < 3 < high[1]
    assert DatasetConfig(path=str(real), keys=KEYS, image_size=0).build().spec.image_hw == (16, 24)


def test_nothing_can_be_played(real: Path):
    env = DatasetConfig(path=str(real), keys=KEYS).build()
    for act in (
        lambda: env.reset(0),
        lambda: env.step(np.zeros(2)),
        env.render,
        env.proprio,
    ):
        with pytest.raises(ValueError, match="real is a dataset, no simulator"):
            act()


def test_sft_needs_no_simulator_and_the_other_verbs_say_that_they_do(real: Path, tmp_path: Path):
    names = ("--env.path", real, "--env.keys.state-keys", "state")
    names += ("--env.keys.rename", "cam_high=front")
    small = (*names, "--env.image-size", "16", "--smoke", "--sft.steps", "2", *SMALL, *MODEL)
    run = run_of(tmp_path / "runs", "sft", "dataset", *small)
    assert (run / "checkpoints/base").is_dir() and not (run / "demos").exists()
    for verb in ("quickstart", "demos", "check"):
        out = () if verb == "check" else ("--out", tmp_path / "none")
        words = (*names, *out, "--ranks", "1")
        assert "sft learns from it" in refused(verb, "dataset", *words)
    assert not (tmp_path / "none").exists()
    assert "env.path is empty" in refused("sft", "dataset")
    assert "give --data" in refused("sft", "point", "--views", "top", "--ranks", "1")


def test_keys_beside_data_and_what_is_said_of_it(tmp_path: Path):
    pushes(tmp_path / "set", scale=100.0, text="push the T", camera="cam_high")
    rename_features(tmp_path / "set", action="actions")
    keys = ("--action-key", "actions", "--rename", "cam_high=top")
    small = ("--smoke", "--sft.steps", "2", *SMALL, "--out", tmp_path / "runs")
    code, out, err = wamrl(
        "sft", "tests.support.odd_recipes:odd", "--data", tmp_path / "set", *keys, *small
    )
    assert code == 0, out + err
    assert "action 0: 100.0% of the dataset's lie outside of the environment's -5..5" in out
    assert "say 'push the T' (6), the environment says 'slide it right'" in out
