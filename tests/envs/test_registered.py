"""What other libraries get by gymnasium's ids."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import wamrl.envs.registered as registered
from wamrl.envs.metaworld.env import MetaWorldConfig

SAMPLE = (
    "wamrl/Point-v0",
    "wamrl/MetaWorld-button-press-v0",
    "wamrl/MetaWorld-stick-push-v0",
)


def test_every_task_has_an_id():
    names = [name for name in gymnasium.registry if name.startswith("wamrl/")]
    assert sum("MetaWorld" in name for name in names) == 50
    assert sum("Robosuite" in name for name in names) == 6


@pytest.mark.parametrize("name", SAMPLE)
def test_gymnasium_s_checker_passes(name):
    env = gymnasium.make(name, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # positions have no bounds; that we would like them is not a fault
        warnings.filterwarnings("ignore", message=".*(infinity|not within|Box observation).*")
        check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize(("name", "fps"), [("Point", 12), ("MetaWorld-button-press", 80)])
def test_films_have_the_pace_of_the_world(name, fps):
    env = gymnasium.make(f"wamrl/{name}-v0", render_mode="rgb_array")
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": fps}
    env.reset(seed=0)
    assert env.render().dtype == np.uint8
    env.close()


@pytest.mark.parametrize("name", SAMPLE)
def test_stable_baselines3_s_checker_passes(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*minimum resolution.*|.*36x36.*")
        checker.check_env(gymnasium.make(name).unwrapped)


def test_the_registered_environment_is_the_one_that_runs_train_on():
    ours = MetaWorldConfig(task="button-press").build()
    theirs = gymnasium.make("wamrl/MetaWorld-button-press-v0", render_mode="rgb_array")
    ours.reset(3)
    seen, info = theirs.reset(seed=3)
    assert info["instruction"] == "press the button"
    expert = ours.expert()
    done = False
    while not done:
        action = expert.action()
        mine = ours.step(action)
        seen, reward, terminated, truncated, info = theirs.step(action)
        assert np.array_equal(seen["front"], ours.render()[0])
        assert np.array_equal(seen["state"], ours.proprio())
        assert np.array_equal(theirs.render(), ours.render()[0])
        done = terminated or truncated
    assert reward == 1.0 and info["success"] and mine.success
    assert info["attempts"] == mine.counters[0] == 1
    theirs.close()


def test_settings_are_those_of_the_config():
    env = gymnasium.make("wamrl/Point-v0", stages=2, image_size=16)
    seen, _ = env.reset(seed=0)
    assert seen["top"].shape == (16, 16, 3) and env.observation_space["state"].shape == (4,)
    with pytest.raises(ValueError, match="env.stages=9"):
        gymnasium.make("wamrl/Point-v0", stages=9)


def test_without_a_seed_the_next_episode_is_drawn_and_a_seed_repeats_what_follows():
    env = gymnasium.make("wamrl/Point-v0").unwrapped

    def seeds() -> list[int]:
        return [env.reset(seed=s)[1]["seed"] for s in (5, None, None)]

    once = seeds()
    assert once == seeds() and len(set(once)) == 3


def test_registering_imports_no_simulator():
    code = (
        "import sys, wamrl.envs.registered; print('mujoco' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
    assert registered.ids()
