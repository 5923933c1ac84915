"""Our step of MetaWorld against MetaWorld's own: the same states and the same success flags, bit for bit."""

import numpy as np
import pytest

from wamrl.envs.experts.metaworld import make_expert
from wamrl.envs.metaworld_sim import Simulation
from wamrl.envs.metaworld_success import SUCCESS
from wamrl.envs.metaworld_tasks import TASKS

pytest.importorskip("metaworld", reason="needs pip install 'wamrl[metaworld]'")


def own_step(sim: Simulation, action: np.ndarray) -> tuple[np.ndarray, bool]:
    """MetaWorld's unchanged step: observation, float64 (39,), and success flag."""
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    observation, *_, info = SawyerXYZEnv.step(sim.env, action)
    return observation, bool(info["success"])


def assert_same_state(ours: Simulation, theirs: Simulation, where: str) -> None:
    for name in ("qpos", "qvel", "qacc_warmstart", "mocap_pos", "ctrl", "xpos", "site_xpos", "cvel"):
        here, there = (getattr(sim.env.data, name) for sim in (ours, theirs))
        assert np.array_equal(here, there), f"{name} differs {where}"
    assert np.array_equal(ours.env.data.contact.geom, theirs.env.data.contact.geom), where


@pytest.mark.parametrize("task", TASKS)
def test_state_and_success_are_those_of_metaworld_s_own_step(task):
    ours, theirs = Simulation(task), Simulation(task)
    rng = np.random.default_rng(0)
    expert = make_expert(task, ours)
    for seed, noise in ((0, 0.0), (1, 0.4)):
        ours.reset(seed)
        theirs.reset(seed)
        flags = []
        after = 0  # steps since the first success: the flag must also go out with MetaWorld's
        while after < 25:
            random = after > 10 or len(flags) < 5
            action = rng.uniform(-1, 1, 4) if random else expert.action() + noise * rng.normal(size=4)
            action = np.clip(action, -1, 1).astype(np.float32)
            flags.append(ours.step(action))
            _, success = own_step(theirs, action)
            assert flags[-1] is success, f"seed {seed}, step {len(flags)}: MetaWorld says {success}"
            assert_same_state(ours, theirs, f"in seed {seed} after step {len(flags)}")
            after += any(flags)
            assert len(flags) < 2 * TASKS[task].horizon, "the expert never succeeds, so nothing is compared"


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

    for name in ("evaluate_state", "compute_reward", "_get_obs", "_get_curr_obs_combined_no_goal", "_get_pos_objects"):
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
