"""Suites: whose turn it is, that a task's states are its own, and that layouts must agree."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wamrl.envs import suite
from wamrl.envs.check import check_env
from wamrl.envs.point import PointConfig, PointSuiteConfig
from wamrl.envs.suite import SPLIT_SIZE, Member, SuiteConfig
from wamrl.pool.pool import PoolConfig
from wamrl.stats.paired import paired_difference
from wamrl.types import InitialState


@dataclass(frozen=True, kw_only=True)
class Sizes(SuiteConfig):
    """Point masses that differ in the number of sub-goals, the board's size, or the horizon."""

    stages: tuple[int, ...] = (1, 1, 1)
    sizes: tuple[int, ...] = (32, 32, 32)
    horizons: tuple[int, ...] = (40, 30, 20)

    def members(self) -> tuple[Member, ...]:
        found = []
        columns = zip("abc", self.stages, self.sizes, self.horizons, strict=True)
        for name, k, size, horizon in columns:
            env = PointConfig(stages=k, image_size=size, horizon=horizon)
            told = env.build().spec.instruction
            found.append(Member(name=name, env=env, instruction=told, horizon=horizon))
        return tuple(found)


def test_the_split_size_is_that_of_initial_states():
    assert InitialState(split="heldout", index=0).seed == SPLIT_SIZE


@pytest.mark.parametrize(
    ("weights", "only", "turns"),
    [
        ((), "", (0, 1, 2)),
        ((3, 1, 2), "", (0, 1, 2, 0, 2, 0)),
        ((3, 1, 2), "c", (2, 2)),
        ((), "b", (1,)),
    ],
)
def test_tasks_take_turns_by_their_weights(weights, only, turns):
    assert Sizes(weights=weights, only=only).turns() == turns


def test_the_k_th_state_of_a_task_is_the_one_that_it_has_alone():
    config = Sizes(weights=(2, 1, 1))
    env = config.build()
    count = [0, 0, 0]
    for index in range(9):
        start = InitialState(split="eval", index=index)
        env.reset(start.seed)
        task = env.spec.turns[index % 4]
        alone = config.members()[task].env.build()
        alone.reset(InitialState(split="eval", index=count[task]).seed)
        count[task] += 1
        assert np.array_equal(env.render(), alone.render())
        assert np.array_equal(env.proprio(), alone.proprio())
        steps = 0
        while not (result := env.step(np.zeros(2, np.float32))).truncated and not result.success:
            steps += 1
        assert steps + 1 == alone.spec.horizon


def test_only_the_instruction_tells_the_two_goals_apart():
    env = PointSuiteConfig().build()
    seen = []
    for seed in (8, 9):
        env.reset(seed)
        seen.append((env.render(), env.proprio()))
        assert env.spec.told(seed) == env.instruction
    assert env.instruction.count("red") and "green" in env.spec.told(8)
    (one, here), (other, there) = seen
    assert np.abs(one.astype(int) - other).max() <= 1 and np.array_equal(here, there)
    expert = env.expert()
    for _ in range(40):
        result = env.step(expert.action())
        if result.success:
            break
    assert result.success


def test_a_suite_keeps_the_contract():
    check_env(PointSuiteConfig().build(), expert=True)
    check_env(Sizes().build())


@pytest.mark.parametrize("change", [{"sizes": (32, 16, 32)}, {"stages": (1, 1, 2)}])
def test_tasks_of_another_layout_are_refused(change):
    env = Sizes(**change).build()
    with pytest.raises(ValueError, match="a suite needs one layout"):
        for seed in range(3):
            env.reset(seed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"only": "z"}, "env.only='z'"),
        ({"weights": (1, 2)}, "one for each"),
        ({"weights": (1, 0, 2)}, "env.weights=0"),
    ],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Sizes(**change).validate()


def test_no_more_scenes_are_kept_than_allowed():
    suite._idle.clear()
    env = Sizes(spare=1).build()
    for seed in range(12):
        env.reset(seed)
        assert len(suite._idle) <= 1
    suite._idle.clear()


def test_every_slot_is_told_its_own_task():
    pool = PoolConfig(n_envs=4, n_workers=1).build(PointSuiteConfig(), n_exec=4, frame_offsets=(4,))
    with pool:
        starts = {slot: InitialState(split="train", index=i) for slot, i in enumerate((0, 1, 3, 2))}
        nothing = torch.zeros(4, 4, 2)
        pool.send(nothing, torch.zeros(4, dtype=torch.bool), starts)
        text = pool.receive().obs.text
        assert ["green" in words for words in text] == [True, False, False, True]
        # a slot that goes on keeps what it was told; one that begins anew is told again
        pool.send(nothing, torch.ones(4, dtype=torch.bool), {})
        assert pool.receive().obs.text == text


def test_the_stratified_interval_keeps_the_shares_of_the_tasks():
    """One task is always gained and one never: only a mixture of them could vary."""
    before = np.zeros(40, bool)
    after = np.arange(40) < 20
    task = (np.arange(40) >= 20).astype(int)
    plain = paired_difference(before, after)
    within = paired_difference(before, after, strata=task)
    assert within.difference == plain.difference == 0.5
    assert (within.low, within.high) == (0.5, 0.5) and plain.high - plain.low > 0.2


def test_a_stratified_interval_of_one_stratum_is_the_plain_one():
    rng = np.random.default_rng(0)
    before = rng.random(300) < 0.4
    after = rng.random(300) < 0.6
    plain = paired_difference(before, after)
    one = paired_difference(before, after, strata=np.zeros(300, int))
    assert abs(plain.low - one.low) < 0.02 and abs(plain.high - one.high) < 0.02
