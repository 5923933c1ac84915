"""MetaWorld: exact resets, pictures in which one sees the task,
stages, and errors that say what to do.
"""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from wamrl.envs import rendering as rendering
from wamrl.envs.check import check_env
from wamrl.envs.metaworld.env import MetaWorldConfig

pytest.importorskip("metaworld", reason="needs pip install -e '.[metaworld]'")

HISTORY = (
    "import numpy as np, tests.envs.metaworld.test_env as t; "
    "print(t.trace(t.MetaWorldConfig(task='{}').build(), 5))"
)


def trace(env, seed: int, render: bool = True) -> str:
    """A digest of everything that is seen and simulated in 15 steps after reset(seed)."""
    rng, digest = np.random.default_rng(seed), hashlib.sha256()
    env.reset(seed)
    for _ in range(15):
        result = env.step(rng.uniform(-1, 1, 4))
        digest.update(str(result).encode())
        digest.update(
            env.proprio().tobytes()
            + env.scene.sim.env.data.qpos.tobytes()
            + env.scene.sim.env.data.qvel.tobytes()
        )
        frame = env.render() if render else None
        digest.update(frame.tobytes() if render == "in digest" else b"")
    return digest.hexdigest()


@pytest.mark.parametrize("task", ["button-press", "pick-place", "stick-pull", "basketball"])
def test_a_seed_gives_bitwise_the_same_episode_whatever_happened_before(task):
    env, other = (MetaWorldConfig(task=task).build() for _ in range(2))
    first = trace(env, 5, "in digest")
    expert = env.expert()
    env.reset(11)
    for _ in range(70):  # long enough to grasp things and to leave contact forces behind
        if env.step(expert.action()).terminated:
            break
    env.reset(12)
    assert trace(env, 5, "in digest") == first, "an earlier episode shows through"
    assert trace(other, 5, "in digest") == first, "another instance differs"
    assert trace(env, 6, "in digest") != first, "the seed is ignored"


def test_a_fresh_process_gives_bitwise_the_same_episode():
    command = [sys.executable, "-c", HISTORY.format("drawer-open")]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    assert trace(MetaWorldConfig(task="drawer-open").build(), 5) == there


def test_rendering_changes_nothing():
    env = MetaWorldConfig(task="push").build()
    assert trace(env, 3, render=True) == trace(env, 3, render=False)


def test_the_simulator_s_distribution_is_kept():
    """The first state is the one that MetaWorld's own reset gives for the same random vector."""
    from metaworld.env_dict import ENV_CLS_MAP

    env = MetaWorldConfig(task="push").build()
    env.reset(7)
    theirs = ENV_CLS_MAP["push-v3"]()
    theirs._set_task_called, theirs._freeze_rand_vec, theirs._last_rand_vec = (
        True,
        True,
        env.scene.sim.env._last_rand_vec,
    )
    observation, _ = theirs.reset()
    np.testing.assert_allclose(env.scene.sim.observation()[:18], observation[:18], atol=1e-3)
    np.testing.assert_allclose(env.scene.sim.goal(), theirs._target_pos, atol=1e-4)


def test_terminated_and_truncated_stay_apart():
    env = MetaWorldConfig(task="reach", horizon=5).build()
    env.reset(0)
    results = [env.step(np.zeros(4)) for _ in range(5)]
    assert [r.truncated for r in results] == [False] * 4 + [True] and not any(
        r.terminated for r in results
    )
    with pytest.raises(AssertionError, match="call reset"):
        env.step(np.zeros(4))


def test_success_is_the_simulator_s_own():
    env = MetaWorldConfig(task="reach").build()
    env.reset(0)
    expert = env.expert()
    sim = env.scene.sim
    while not (result := env.step(expert.action())).success:
        assert np.linalg.norm(sim.env.tcp_center - sim.goal()) > 0.05
    assert result.terminated and np.linalg.norm(sim.env.tcp_center - sim.goal()) <= 0.05


def test_pictures_are_upright_and_show_hand_goal_and_object():
    env = MetaWorldConfig(task="pick-place").build()
    for seed in range(8):
        env.reset(seed)
        red, green, blue = (env.render()[0, ..., c].astype(int) for c in range(3))
        goal, puck, finger = (
            (green > 2 * red) & (green > 2 * blue),
            red > 200,
            (blue > 150) & (red < 80),
        )
        assert goal.sum() >= 10 and (puck & (green < 60)).sum() >= 4 and finger.sum() >= 8, (
            f"seed {seed}"
        )
        rows = np.arange(64)
        assert rows @ finger.sum(1) / finger.sum() < rows @ goal.sum(1) / goal.sum() + 25, (
            "upside down"
        )
        assert (red + green + blue)[:8].mean() < (red + green + blue)[-8:].mean(), (
            "the dark sky is not on top"
        )


def test_thinning_leaves_physics_alone_and_tasks_can_alternate():
    reach, door = (
        MetaWorldConfig(task=task, views=("front", "wrist")).build()
        for task in ("reach", "door-open")
    )
    faces = reach.scene.sim.env.model.mesh_facenum.sum()
    alone = reach.render()
    assert door.render().shape == alone.shape == (2, 64, 64, 3)
    assert np.array_equal(reach.render(), alone)
    assert reach.scene.sim.env.model.mesh_facenum.sum() == faces
    assert rendering.drawing_copy(reach.scene.sim.env.model, 64, 64).mesh_facenum.sum() < faces / 8


@pytest.mark.parametrize("task", ["reach", "push", "pick-place"])
def test_stages_follow_one_another_in_one_scene(task):
    env = MetaWorldConfig(task=task, stages=3).build()
    env.reset(2)
    sim = env.scene.sim
    expert, goals, done = env.expert(), [sim.goal()], []
    while True:
        result = env.step(expert.action())
        done.append(result.stages)
        if result.terminated or result.truncated:
            break
        if result.stages == len(goals):
            goals.append(sim.goal())
    assert result.success and sorted(set(done)) == [0, 1, 2, 3] and done == sorted(done)
    assert min(np.linalg.norm(a - b) for a, b in zip(goals, goals[1:], strict=False)) >= 0.15
    env.reset(2)
    assert np.array_equal(sim.goal(), goals[0]) and np.array_equal(env.scene._next, goals[1:])


def test_the_next_button_stands_elsewhere_and_is_out_again():
    env = MetaWorldConfig(task="button-press", stages=3, horizon=240).build()
    for seed, noise in ((0, 0.0), (1, 0.3), (3, 0.3)):
        env.reset(seed)
        box = env.scene.sim.env.model.body("box")
        button = env.scene.sim.env.data.joint("btnbox_joint")
        rng = np.random.default_rng(seed)
        expert, places, last = env.expert(), [box.pos.copy()], 0
        while True:
            pressed = abs(float(button.qpos[0]))
            result = env.step(expert.action() + noise * rng.normal(size=4))
            if result.terminated or result.truncated:
                break
            if result.stages > last:
                last = result.stages
                places.append(box.pos.copy())
                # it was in, and is out again
                assert pressed > 0.05 and abs(float(button.qpos[0])) < 1e-9
        assert result.success and last == 2, f"seed {seed}"
        # drawing back and pressing there is no retry
        assert noise or result.counters == (3, 0)
        assert min(abs(a[0] - b[0]) for a, b in zip(places, places[1:], strict=False)) >= 0.08
        assert np.allclose([p[1:] for p in places], places[0][1:])
        env.reset(seed)
        assert np.array_equal(box.pos, places[0]) and np.array_equal(env.scene._next, places[1:])


def test_the_contract_checker_passes():
    check_env(
        MetaWorldConfig(task="push", stages=2, views=("front", "wrist"), image_size=48).build(),
        expert=True,
    )


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            MetaWorldConfig(task="make-tea"),
            "unknown MetaWorld task 'make-tea': choose one of assembly",
        ),
        (
            MetaWorldConfig(task="drawer-open", stages=2),
            "choose one of reach, push, pick-place, button-press",
        ),
        (MetaWorldConfig(task="reach", stages=9), "env.stages=9 .* <= 4"),
        (MetaWorldConfig(image_size=8), "choose 16 to 512"),
        (MetaWorldConfig(views=("back",)), "choose one or more of"),
        (MetaWorldConfig(horizon=0), "env.horizon=0 .* >= 1"),
    ],
)
def test_bad_configs_are_refused_with_advice(config, fault):
    with pytest.raises(ValueError, match=fault):
        config.validate()


def test_importing_needs_no_simulator_and_building_names_the_extra(monkeypatch):
    code = (
        "import sys, wamrl.envs.metaworld.env; sys.exit('mujoco' in sys.modules or 'metaworld' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[metaworld\]'"):
        MetaWorldConfig().build()


def test_missing_gl_says_what_to_install(monkeypatch):
    from mujoco import egl

    def broken(*_):
        raise ImportError("Cannot initialize a EGL device display")

    env = MetaWorldConfig(task="faucet-open").build()
    monkeypatch.setattr(rendering, "_context", {})
    monkeypatch.setattr(rendering, "_renderers", {})
    monkeypatch.setattr(egl, "GLContext", broken)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(ValueError, match="install libegl1 and libgl1-mesa-dri"):
        env.render()
