"""robosuite: exact resets, its own physics and success,
upright pictures, experts that recover, stages.
"""

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from wamrl.envs.check import check_env
from wamrl.envs.robosuite.env import RobosuiteConfig
from wamrl.envs.robosuite.tasks import TASKS
from wamrl.types import InitialState

pytest.importorskip("robosuite", reason="needs pip install -e '.[robosuite]'")

SHORT = ("lift", "stack", "pick-place-can", "nut-assembly-square")
FRESH = """
from wamrl.envs.robosuite.env import RobosuiteConfig
env = RobosuiteConfig(task="lift").build()
import tests.envs.robosuite.test_env as t
print(t.trace(env, 5))
"""


@cache
def build(task: str):
    """One environment per task for the whole file: building takes seconds, and resets are exact."""
    return RobosuiteConfig(task=task, views=("front", "wrist")).build()


def trace(env, seed: int, steps: int = 12, render: bool = True) -> str:
    """A digest of all that is simulated after reset(seed), and of the pictures."""
    rng, digest = np.random.default_rng(seed), hashlib.sha256()
    env.reset(seed)
    for _ in range(steps):
        result = env.step(rng.uniform(-1, 1, 7))
        digest.update(str(result).encode() + env.proprio().tobytes())
        digest.update(env.scene.sim.data.qpos.tobytes() + env.scene.sim.data.qvel.tobytes())
        if render:
            env.render()
    return digest.hexdigest()


def play(env, seed: int, carried: int | None = None):
    """The expert's last result; `carried`: after so many steps of holding,
    the fingers open for 15 control steps.
    """
    env.reset(seed)
    sim = env.scene.sim
    expert, held, dropping = env.expert(), 0, 0
    while True:
        action = expert.action()
        if carried is not None and not dropping:
            held = held + 1 if any(map(sim.held, sim.task.things)) else 0
            dropping = int(held >= carried)
        if 0 < dropping <= 15:
            action[6], dropping = -1.0, dropping + 1
        result = env.step(action)
        if result.terminated or result.truncated:
            assert carried is None or dropping, "nothing was ever held"
            return result


@pytest.mark.parametrize("task", TASKS)
def test_the_contract_checker_passes(task):
    check_env(build(task), limit=20)


@pytest.mark.parametrize("task", ["stack", "pick-place"])
def test_a_seed_gives_bitwise_the_same_episode_whatever_happened_before(task):
    env = build(task)
    first = trace(env, 5)
    env.reset(11)
    expert = env.expert()
    for _ in range(50):  # long enough to hold something
        if env.step(expert.action()).terminated:
            break
    assert trace(env, 5, render=False) == first, (
        "an earlier episode shows through, or rendering changes something"
    )
    assert trace(env, 6) != first, "the seed is ignored"


def played(*scenes, steps: int = 45) -> list[list[tuple]]:
    """What happens to each (environment, seed) in an expert's hand, all of them played in turns."""
    for env, seed in scenes:
        env.reset(seed)
    experts = [env.expert() for env, _ in scenes]
    happened = [[] for _ in scenes]
    for _ in range(steps):
        for (env, _), expert, mine in zip(scenes, experts, happened, strict=True):
            if mine and mine[-1][0].terminated:
                continue
            result = env.step(expert.action())
            mine.append((result, env.proprio().tobytes(), env.scene.sim.data.qpos.tobytes()))
    return happened


@pytest.mark.parametrize("task", ["lift", "pick-place", "nut-assembly"])
def test_the_scenes_of_a_process_share_a_model_and_nothing_else(task):
    one = build(task)
    other = RobosuiteConfig(task=task, views=("front", "wrist")).build()
    assert one.scene.sim.model is other.scene.sim.model
    together = played((one, 5), (other, 6))
    assert together == played((one, 5)) + played((other, 6))
    assert together[0] != together[1]


def test_a_fresh_process_gives_bitwise_the_same_episode():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert trace(build("lift"), 5) == done.stdout.split()[-1]
    assert not done.stderr.strip(), "robosuite's remarks are not silenced"


def test_the_physics_and_the_controller_are_robosuite_s_own():
    env, actions = build("nut-assembly"), np.random.default_rng(0).uniform(-1, 1, (15, 7))
    env.reset(3)
    start = env.scene.sim.data.qpos.copy()
    for action in actions:
        env.scene.sim.env.step(action)
    theirs = env.scene.sim.data.qpos.copy()
    env.reset(3)
    for action in actions:
        env.scene.sim.step(action)
    assert np.abs(theirs - start).max() > 0.05
    np.testing.assert_allclose(env.scene.sim.data.qpos, theirs, atol=1e-5)


@pytest.mark.parametrize("task", SHORT)
def test_the_expert_solves_the_short_tasks(task):
    for index in (0, 1):
        result = play(build(task), InitialState(split="eval", index=index).seed)
        assert (
            result.success and result.terminated and result.stages == 1 and result.counters[0] >= 1
        ), index


def test_the_expert_grasps_again_what_was_dropped():
    result = play(
        build("nut-assembly-square"), InitialState(split="eval", index=2).seed, carried=12
    )
    assert result.success and result.counters[1] >= 1


def test_stages_count_the_nuts_that_are_placed():
    env = build("nut-assembly")
    env.reset(2)
    model, data = env.scene.sim.model, env.scene.sim.data
    done = []
    for nut, peg in (("SquareNut", "peg1"), ("RoundNut", "peg2")):
        address = model.joint(f"{nut}_joint0").qposadr[0]
        data.qpos[address : address + 3] = [*model.body(peg).pos[:2], 0.83]
        data.qpos[address + 3 : address + 7] = [1, 0, 0, 0]
        done.append(env.step(np.zeros(7)))
    assert [r.stages for r in done] == [1, 2] and [r.success for r in done] == [False, True]
    assert [r.counters[0] for r in done] == [1, 2] and done[-1].counters[1] == 0
    env.reset(2)
    address = model.joint("SquareNut_joint0").qposadr[0]
    rest = data.qpos[address : address + 7].copy()
    data.qpos[address : address + 7] = [*model.body("peg1").pos[:2], 0.83, 1, 0, 0, 0]
    assert env.step(np.zeros(7)).stages == 1
    data.qpos[address : address + 7] = rest
    assert env.step(np.zeros(7)).stages == 1, "stages went back"
    success, placed = env.scene.sim.step(np.zeros(7))
    assert not success and not any(placed)


def cube_seen(env) -> np.ndarray:
    """Where the front view shows the red cube, bool (H, W)."""
    red, green = (env.render()[0, ..., c].astype(int) for c in range(2))
    return (red > 2 * green) & (red > 80)


def test_pictures_are_upright_and_show_the_thing():
    import mujoco

    env, rows = build("lift"), np.arange(64)
    for seed in range(4):
        env.reset(seed)
        table = (env.render()[0] > 215).all(-1)
        assert cube_seen(env).sum() >= 12, f"seed {seed}: the cube is not seen"
        assert rows @ table.sum(1) / table.sum() > 32, "the table is not below"
    before = rows @ cube_seen(env).sum(1) / cube_seen(env).sum()
    env.scene.sim.data.qpos[env.scene.sim.model.joint("cube_joint0").qposadr[0] + np.arange(3)] += [
        0.1,
        0.0,
        0.1,
    ]
    mujoco.mj_forward(env.scene.sim.model, env.scene.sim.data)
    assert rows @ cube_seen(env).sum(1) / cube_seen(env).sum() < before - 3, (
        "the raised cube is not higher up"
    )


def test_the_hand_moves_and_turns_as_the_action_says():
    env = build("lift")
    env.reset(0)
    position, _ = env.scene.sim.hand.pose()
    for _ in range(6):
        env.step(np.array([0, 1, 0, 0, 0, 0, -1]))
    moved = env.scene.sim.hand.pose()[0] - position
    assert moved[1] > 0.03 and np.abs(moved[[0, 2]]).max() < 0.01
    state = env.proprio()
    assert state[4] + state[5] >= 0 and abs(np.linalg.norm(state[3:7]) - 1) < 1e-5
    assert state[7] > 0.03 and state[8] < -0.03, "the fingers are open"


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (RobosuiteConfig(task="make-tea"), "unknown robosuite task 'make-tea': choose one of lift"),
        (RobosuiteConfig(image_size=8), "choose 16 to 512"),
        (RobosuiteConfig(views=("back",)), "choose one or more of"),
        (RobosuiteConfig(horizon=0), "env.horizon=0 .* >= 1"),
    ],
)
def test_bad_configs_are_refused_with_advice(config, fault):
    with pytest.raises(ValueError, match=fault):
        config.build()


def test_importing_needs_no_simulator_and_building_names_the_extra(monkeypatch):
    from wamrl.envs.robosuite import simulation as robosuite_sim

    code = (
        "import sys, wamrl.envs.robosuite.env; sys.exit('mujoco' in sys.modules or 'robosuite' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "robosuite", None)
    robosuite_sim.import_robosuite.cache_clear()
    with pytest.raises(ValueError, match=r"pip install -e '\.\[robosuite\]'"):
        RobosuiteConfig().build()
    monkeypatch.undo()
    robosuite_sim.import_robosuite.cache_clear()
