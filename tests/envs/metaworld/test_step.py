"""Our step of MetaWorld against MetaWorld's own: the same states and flags, bit for bit."""

import numpy as np
import pytest

from wamrl.envs.metaworld.expert import make_expert
from wamrl.envs.metaworld.simulation import Simulation
from wamrl.envs.metaworld.success import SUCCESS
from wamrl.envs.metaworld.tasks import TASKS

pytest.importorskip("metaworld", reason="needs pip install -e '.[metaworld]'")


SEEN = ("qpos", "qvel", "qacc_warmstart", "mocap_pos", "ctrl", "xpos", "site_xpos", "cvel")
READS = ("evaluate_state", "compute_reward", "_get_obs", "_get_curr_obs_combined_no_goal")


def own_step(sim: Simulation, action: np.ndarray) -> tuple[np.ndarray, bool]:
    """MetaWorld's unchanged step: observation, float64 (39,), and success flag."""
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    observation, *_, info = SawyerXYZEnv.step(sim.env, action)
    return observation, bool(info["success"])


def assert_same_state(ours: Simulation, theirs: Simulation, where: str) -> None:
    for name in SEEN:
        here, there = (getattr(sim.env.data, name) for sim in (ours, theirs))
        assert np.array_equal(here, there), f"{name} differs {where}"
    assert np.array_equal(ours.env.data.contact.geom, theirs.env.data.contact.geom), where


@pytest.mark.parametrize("task", TASKS)
def test_state_and_success_are_those_of_metaworld_s_own_step(task):
    ours, theirs = Simulation(task), Simulation(task)
    rng = np.random.default_rng(0)
    expert = make_expert(task, ours)
    successes = 0
    for seed, noise in ((0, 0.0), (1, 0.4)):
        ours.reset(seed)
        theirs.reset(seed)
        flags = []
        after = 0  # steps since the first success: the flag must also go out with MetaWorld's
        while after < 25 and len(flags) < 2 * TASKS[task].horizon:
            random = after > 10 or len(flags) < 5
            action = rng.uniform(-1, 1, 4)
            if not random:
                action = expert.action() + noise * rng.normal(size=4)
            action = np.clip(action, -1, 1).astype(np.float32)
            flags.append(ours.step(action))
            _, success = own_step(theirs, action)
            assert flags[-1] is success, f"seed {seed}, step {len(flags)}: MetaWorld says {success}"
            assert_same_state(ours, theirs, f"in seed {seed} after step {len(flags)}")
            after += any(flags)
        successes += any(flags)
    assert successes, "no success, so nothing is compared"


def own_flag(sim: Simulation) -> bool:
    """MetaWorld's flag of the present state, with its reward and all."""
    _, info = sim.env.evaluate_state(sim.env._get_obs(), np.zeros(4, np.float32))
    return bool(info["success"])


def bisect(sim: Simulation, put, yes, no) -> None:
    """From a value with success and one without down to neighbouring floats, compared."""
    for _ in range(60):
        middle = (yes + no) / 2
        put(middle)
        success = own_flag(sim)
        assert sim._succeeded() is success, f"MetaWorld says {success} at {middle}"
        yes, no = (middle, no) if success else (yes, middle)
    assert np.allclose(yes, no, rtol=0, atol=1e-14)


def solved(task: str) -> Simulation:
    """The scene as the expert leaves it."""
    sim = Simulation(task)
    sim.reset(0)
    expert = make_expert(task, sim)
    while not sim.step(expert.action()):
        pass
    return sim


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ("hammer", "lever-pull")])
def test_the_edge_of_success_is_metaworld_s_to_the_last_bit(task):
    """Goals are drawn away from a solved scene in several directions."""
    sim = solved(task)
    goal = sim.goal()
    edges = 0
    ways = [*np.eye(3), *-np.eye(3), *np.random.default_rng(0).normal(size=(4, 3))]
    if task == "plate-slide-back-side":  # MetaWorld's reward fails for goals where the plate began
        ways = [way for way in ways if way[0] > -0.5]
    for way in ways:
        sim.set_goal(goal + 0.4 * way)
        assert sim._succeeded() is own_flag(sim)
        if not own_flag(sim):  # else the task does not look in that direction
            bisect(sim, sim.set_goal, goal, goal + 0.4 * way)
            edges += 1
    assert edges >= 4, "hardly any direction has an edge"


def test_the_nail_the_lever_and_the_stick_count_from_metaworld_s_edge():
    """What does not depend on the goal: how far the nail is in, how far the lever is up, and where
    the stick's end is.
    """
    sim = solved("hammer")
    nail = sim.env.data.joint("NailSlideJoint").qpos
    bisect(sim, lambda depth: nail.__setitem__(0, depth), nail.item(), 0.0)
    sim = solved("lever-pull")
    lever = sim.env.data.joint("LeverAxis").qpos
    for down in (0.0, -np.pi):
        bisect(sim, lambda angle: lever.__setitem__(0, angle), -np.pi / 2, down)
    sim = solved("stick-pull")
    end = sim.env.data.site("stick_end").xpos
    inside = end.copy()
    for way in np.array([(-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]):
        bisect(sim, lambda place: end.__setitem__(slice(None), place), inside, inside + way)


def test_the_hand_stops_where_metaworld_stops_it():
    ours, theirs = Simulation("reach"), Simulation("reach")
    ours.reset(0)
    theirs.reset(0)
    for sign in (1, -1):
        for _ in range(110):
            action = np.full(4, sign, np.float32)
            ours.step(action)
            own_step(theirs, action)
            assert_same_state(ours, theirs, f"on the way to the corner {sign}")
        bound = ours.env.mocap_high if sign > 0 else ours.env.mocap_low
        assert np.array_equal(ours.env.data.mocap_pos[0], bound)


def test_every_task_has_its_success():
    assert list(SUCCESS) == list(TASKS)


def test_success_follows_a_replaced_goal():
    """Stages replace the goal while the scene goes on."""
    ours, theirs = Simulation("reach"), Simulation("reach")
    ours.reset(3)
    theirs.reset(3)
    far = ours.goal()
    flags = set()
    for goal in (far, ours.env.tcp_center, far):
        ours.set_goal(goal)
        theirs.set_goal(goal)
        still = np.zeros(4, np.float32)
        flags.add(ours.step(still))
        assert ours._succeeded() is own_step(theirs, still)[1]
    assert flags == {True, False}


@pytest.mark.parametrize("task", ["button-press", "hammer"])
def test_a_step_asks_for_neither_observation_nor_reward(task, monkeypatch):
    sim = Simulation(task)

    def unwanted(*_, **__):
        raise AssertionError("nobody reads this")

    for name in READS:
        monkeypatch.setattr(type(sim.env), name, unwanted)
    assert sim.step(np.zeros(4, np.float32)) is False


def test_metaworld_s_own_step_may_follow_ours():
    """Its observation stacks the one before, which our steps do not make."""
    mixed, theirs = Simulation("push"), Simulation("push")
    mixed.reset(4)
    theirs.reset(4)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        mixed.step(action)
        own_step(theirs, action)
    assert np.array_equal(mixed.observation(), theirs.observation())
    there, _ = own_step(theirs, action)
    here, *_ = mixed.env.step(action)
    assert np.array_equal(here, there)
    assert mixed.env.curr_path_length == theirs.env.curr_path_length == 6
