import importlib
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import pools
from tests.support.fake_gym import TwoCameras
from wamrl.data.episodes import load
from wamrl.envs.check import check_env
from wamrl.envs.gymnasium.env import GymConfig
from wamrl.pool.pool import PoolConfig
from wamrl.recipes.find import find_recipe
from wamrl.recipes.gym import pusht
from wamrl.runtime.images import resize
from wamrl.types import InitialState

TWO = GymConfig(
    id="wamrl_tests/TwoCameras-v0", module="tests.support.fake_gym", instruction="go", image_size=8
)


def fake(**kwargs) -> GymConfig:
    return replace(TWO, kwargs=tuple(kwargs.items()))


def inner(env) -> TwoCameras:
    return env.scene.env.unwrapped


def test_resizing_takes_the_mean_of_the_area():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 24, 48, 3), dtype=np.uint8)
    exact = frames.reshape(2, 8, 3, 8, 6, 3).mean((2, 4))
    assert np.abs(resize(frames, (8, 8)) - exact).max() <= 0.5 + 1e-4
    assert resize(frames, (24, 48)) is frames
    assert np.array_equal(resize(frames[0], (48, 96)), frames[0].repeat(2, 0).repeat(2, 1))
    # 1.5 old pixels per new one
    half = resize(np.array([[0, 90, 180]], np.uint8)[..., None].repeat(3, 2), (1, 2))
    assert half[0, :, 0].tolist() == [30, 150]
    flat = np.full((17, 13, 3), 201, np.uint8)
    assert (resize(flat, (7, 29)) == 201).all()


def test_an_environment_of_lerobots_conventions_works_unchanged():
    env = TWO.build()
    assert env.spec.views == ("front", "wrist") and env.spec.image_hw == (8, 8)
    assert env.spec.action_dim == 2 and env.spec.proprio_dim == 2 and env.spec.horizon == 7
    assert env.spec.action_low == (-1.0, 0.0) and env.spec.action_high == (3.0, 10.0)
    check_env(env)
    assert pickle.loads(pickle.dumps(TWO)) == TWO and hash(TWO) == hash(
        pickle.loads(pickle.dumps(TWO))
    )


def test_frames_and_state_are_the_environments_own():
    env = replace(TWO, image_size=24).build()
    for seed in (300_000_000, 2):
        env.reset(seed)
        start = env.proprio()
        for step in range(4):
            if step:
                env.step(np.array([1, 2], np.float32))
            rngs = [np.random.default_rng([camera, seed, step]) for camera in (0, 1)]
            pictures = [rng.integers(0, 256, (24, 48, 3), dtype=np.uint8) for rng in rngs]
            means = np.stack(pictures).reshape(2, 24, 24, 2, 3).mean(3)
            assert np.abs(env.render() - means).max() <= 0.5
            assert np.allclose(env.proprio(), start + step * np.array([1, 2]), atol=1e-5)


def test_views_are_chosen_and_renamed():
    env = replace(TWO, views=("wrist",)).build()
    assert env.spec.views == ("wrist",)
    env.reset(5)
    assert np.array_equal(env.render()[0], resize(inner(env).picture(1), (8, 8)))
    env = replace(TWO, views=("hand", "look"), image_keys=("pixels/wrist", "render()")).build()
    env.reset(5)
    want = [resize(inner(env).picture(camera), (8, 8)) for camera in (1, 2)]
    assert env.spec.views == ("hand", "look") and np.array_equal(env.render(), want)
    assert fake(kind="one").build().spec.views == ("image",)
    assert replace(fake(kind="one"), views=("top",)).build().spec.views == ("top",)


def test_success_ends_the_episode_and_actions_are_clipped():
    env = fake(goal=25.0).build()
    env.reset(0)
    results = [env.step(np.array([100, 100], np.float32)) for _ in range(2)]  # 13 per step, not 200
    assert [r.success for r in results] == [r.terminated for r in results] == [False, True]
    assert [r.stages for r in results] == [0, 1] and not results[1].truncated
    with pytest.raises(AssertionError, match="the episode is over"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(("horizon", "steps"), [(None, 7), (3, 3), (12, 12)])
def test_the_clock_is_ours(horizon, steps):
    env = replace(TWO, horizon=horizon).build()
    check_env(env)
    env.reset(0)
    results = [env.step(np.zeros(2, np.float32)) for _ in range(steps)]
    assert [r.truncated for r in results] == [False] * (steps - 1) + [True]


def test_an_end_is_a_failure_unless_one_says_otherwise():
    env = fake(fails_at=2).build()
    env.reset(0)
    last = [env.step(np.zeros(2, np.float32)) for _ in range(2)][-1]
    assert last.terminated and not last.success and last.stages == 0
    env = replace(fake(fails_at=2), success_key="terminated").build()
    env.reset(0)
    assert [env.step(np.zeros(2, np.float32)).success for _ in range(2)] == [False, True]
    assert replace(TWO, success_key="solved").build().spec.stages == 1


def test_stages_come_from_info():
    env = replace(fake(goal=25.0), stages=2).build()
    env.reset(0)
    up, down = np.array([3, 10], np.float32), np.array([-1, 0], np.float32)
    inner(env)._place[:] = 0
    # 13, 12, 25: half of the goal is 12.5
    assert [env.step(a).stages for a in (up, down, up)] == [1, 1, 1]
    assert env.step(up).stages == 2


def test_what_survives_a_reset_is_found_and_rebuilding_helps():
    with pytest.raises(ValueError, match=r"reset\(seed\) is not reproducible"):
        check_env(fake(remembers=True).build())
    check_env(replace(fake(remembers=True), rebuild=True).build())


def test_state_keys():
    env = replace(TWO, state_keys=("nothing()",)).build()
    assert env.spec.proprio_dim == 1 and env.proprio().tolist() == [0.0]
    env = replace(TWO, state_keys=("agent_pos", "agent_pos")).build()
    assert env.spec.proprio_dim == 4


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": ""}, "env.id is empty"),
        ({"image_size": 7}, "env.image_size=7 .* >= 8"),
        ({"views": ("a", "a")}, "name every camera once"),
        ({"views": ("a",), "image_keys": ("b", "c")}, "2 image_keys for 1 views"),
        ({"state_keys": ("nothing()", "agent_pos")}, "stands alone"),
        ({"horizon": 0}, "env.horizon=0 .* >= 1"),
        ({"stages": 0}, "stages=0"),
        ({"kwargs": (("render_mode", "human"),)}, "leave it out"),
    ],
)
def test_bad_configs_are_refused_before_anything_is_imported(change, fault):
    with pytest.raises(ValueError, match=fault):
        replace(TWO, **{"module": "nowhere_at_all"} | change).validate()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"module": "nowhere_at_all"}, "cannot import nowhere_at_all .* install"),
        ({"id": "wamrl_tests/Nothing-v0"}, "gymnasium knows no 'wamrl_tests/Nothing-v0'"),
        ({"id": "CartPole-v1", "module": ""}, "Discrete.*needs continuous ones"),
        ({"kwargs": (("kind", "endless"),)}, "without bounds"),
        ({"kwargs": (("kind", "integers"),)}, "needs continuous ones"),
        ({"kwargs": (("colour", 3),)}, "cannot be made with .*colour"),
        ({"id": "wamrl_tests/NoClock-v0"}, "no time limit of its own: set env.horizon"),
        ({"views": ("left",)}, "no 'pixels/left': there are front, wrist"),
        ({"views": ("a",), "image_keys": ("agent_pos",)}, "agent_pos is float64 .*not one picture"),
        ({"kwargs": (("kind", "one"),), "views": ("a", "b")}, "set env.image_keys as well"),
        ({"state_keys": ("joints",)}, "no 'joints': there are pixels, agent_pos"),
        ({"success_key": "done"}, "no success 'done' .*solved, stages.*such as 'is_success'"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(change, fault):
    with pytest.raises(ValueError, match=fault):
        replace(TWO, **change).build()


def test_a_missing_gym_pusht_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[gym\]'"):
        pusht().env.build()


def test_a_pool_of_processes_sees_what_one_environment_sees():
    config = fake(goal=40.0)
    plan = np.random.default_rng(0).uniform(-2, 12, (3, 3, 2)).astype(np.float32)
    simulators = PoolConfig(n_envs=3, n_workers=2)
    with simulators.build(config, n_exec=3, frame_offsets=(1, 3)) as pool:
        obs = pools.begin(pool, [InitialState(split="train", index=i) for i in range(3)]).obs
        outcome = pools.step(pool, plan)
    for row in range(3):
        env = config.build()
        env.reset(InitialState(split="train", index=row).seed)
        assert np.array_equal(obs.frames[row, 0].numpy(), env.render())
        for action in plan[row]:
            result = env.step(action)
        assert np.array_equal(outcome.frames[row, 1].numpy(), env.render())
        assert np.array_equal(outcome.obs.proprio[row].numpy(), env.proprio())
        assert bool(outcome.success[row]) == result.success


def test_pusht():
    pytest.importorskip("gym_pusht")
    env = pusht().env.build()
    assert (
        env.spec.action_high == (512.0, 512.0)
        and env.spec.horizon == 300
        and env.spec.image_hw == (96, 96)
    )
    check_env(env)
    with pytest.raises(ValueError, match="bring demonstrations"):
        env.expert()
    block, first = env.scene.env.unwrapped, []
    for _ in range(2):  # contacts, and another history before each
        env.reset(7)
        for _ in range(40):
            env.step(np.array(block.block.position, np.float32))
        first.append((env.render(), env.proprio(), tuple(block.block.position)))
        env.reset(8)
        env.step(np.array([100, 100], np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(*first, strict=True))


def test_an_environment_that_only_renders():
    """Gymnasium's MuJoCo: the picture of env.render(),
    whatever other environment of the process drew last.
    """
    pytest.importorskip("mujoco")
    config = GymConfig(
        id="Reacher-v5",
        instruction="touch the red dot",
        success_key="terminated",
        kwargs=(("width", 64), ("height", 64)),
    )
    env = config.build()
    assert env.spec.views == ("image",) and env.spec.proprio_dim == 10 and env.spec.horizon == 50
    check_env(env)
    env.reset(3)
    frame = env.render()
    other = replace(config, id="Pusher-v5").build()
    env.reset(3)
    assert np.array_equal(env.render(), frame)
    other.close()
    env.reset(3)
    assert np.array_equal(env.render(), frame)


def test_the_page_on_ones_own_environments_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "bring-your-own.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_push.py").write_text("\n\n".join(blocks))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_push")
    assert module.frame.shape == (1, 64, 64, 3) and module.env.spec.views == ("top",)
    find_recipe("my_push:my_recipe")().validate()
    module.record(tmp_path / "demos", episodes=2)
    kept = load(tmp_path / "demos", module.my_recipe().env.build().spec)
    assert [e.success for e in kept] == [True, True] and (kept[0].actions == [5, 0]).all()
