"""`collect`: the same episodes however many slots there are,
complete, in order, and honest about lost ones.
"""

import os
import signal
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from tests.support.faulty import WalkConfig
from wamrl.pool.pool import PoolConfig
from wamrl.rollout.collect import collect
from wamrl.rollout.metrics import mixed_outcome, rollout_metrics
from wamrl.rollout.samples import success_clips
from wamrl.rollout.schedule import episode_generator
from wamrl.types import InitialState


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.build_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def rollout(pool):
    return tiny.explore(tiny.lively(), pool, 20)


@pytest.mark.parametrize("sampler", ["explore", "ode", "zero"])
def test_results_do_not_depend_on_the_number_of_slots(pool, sampler):
    wam, starts = tiny.lively(), tiny.starts(11)

    def run(pool):
        return collect(wam, pool, starts, tiny.CONFIG.flow, seed=3, sampler=sampler)

    wide = run(pool)
    with tiny.build_pool(n_envs=3) as narrow:
        other = run(narrow)
    assert torch.equal(wide.success, other.success) and torch.equal(wide.length, other.length)
    assert 0 < wide.success.sum() < 11
    a, b = wide.decisions, other.decisions
    for name in ("episode", "step", "executed", "done", "success", "verifiable"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.plan.seed, b.plan.seed)
    assert (a.plan.actions - b.plan.actions).abs().max() < 1e-5
    noisy = tiny.CONFIG.flow.steps if sampler == "explore" else 0
    assert a.plan.chain_x.shape[1] == noisy


def test_another_seed_gives_other_noise(pool, rollout):
    again, other = (tiny.explore(tiny.lively(), pool, 20, seed) for seed in (0, 1))
    assert torch.equal(again.decisions.plan.actions, rollout.decisions.plan.actions)
    assert not torch.equal(other.decisions.plan.seed[:20], rollout.decisions.plan.seed[:20])


def test_episodes_are_complete_and_sorted(rollout):
    chunks, n = rollout.decisions, len(rollout.starts)
    # more starts than slots
    assert n == 20 and rollout.starts == tiny.starts(20) and rollout.lost == 0
    key = chunks.episode * 1000 + chunks.step
    assert (key.diff() > 0).all() and chunks.episode.unique().tolist() == list(range(n))
    for e in range(n):
        rows = chunks[chunks.episode == e]
        executed = rows.executed.tolist()
        assert rows.step.tolist() == [sum(executed[:i]) for i in range(len(executed))]
        assert rows.done.tolist() == [False] * (len(executed) - 1) + [True]
        assert executed[:-1] == [8] * (len(executed) - 1) and 1 <= executed[-1] <= 8
        assert rollout.length[e] == sum(executed) <= 40
        assert rollout.success[e] == rows.success.any() and not rows.success[:-1].any()
        assert rollout.success[e] == rollout.stages[e] or rollout.length[e] == 40
    fresh = torch.arange(20) < 5
    metrics = rollout_metrics(rollout, fresh)
    assert metrics["rollout/success_fresh"] == pytest.approx(
        rollout.success[:5].float().mean().item()
    )
    assert metrics["rollout/fresh"] == 5 and metrics["rollout/episodes"] == 20
    assert metrics["rollout/steps"] == rollout.length.sum()


def test_states_with_both_outcomes_are_mixed(rollout):
    states = [InitialState(split="train", index=i) for i in (5, 5, 5, 9, 9, 2, 2, 7)]
    some = replace(rollout, starts=states, success=torch.tensor([1, 1, 1, 0, 1, 0, 0, 1]).bool())
    # the states 2, 5 and 9; 7 was tried once
    assert mixed_outcome(some).tolist() == [False, False, True]
    assert "rollout/mixed_outcome" not in rollout_metrics(rollout, torch.ones(20, dtype=torch.bool))


def test_masks_cover_exactly_what_was_executed(rollout):
    chunks = rollout.decisions
    assert torch.equal(chunks.mask.sum(1), chunks.executed) and chunks.mask.shape == (
        len(chunks),
        8,
    )
    assert (chunks.mask.int().diff(dim=1) <= 0).all()
    assert torch.equal(chunks.verifiable, torch.tensor([4, 8]) <= chunks.executed[:, None])
    assert (chunks.executed < 8).any()


def test_repeated_starts_get_different_noise(pool):
    one, two = InitialState(split="train", index=1), InitialState(split="train", index=2)
    r = collect(
        tiny.lively(), pool, [one, two, one, one], tiny.CONFIG.flow, seed=0, sampler="explore"
    )
    first = [r.decisions[(r.decisions.episode == e) & (r.decisions.step == 0)] for e in range(4)]
    assert torch.equal(first[0].obs.frames, first[2].obs.frames)  # the same state
    assert len({int(f.plan.seed) for f in first}) == 4
    assert not torch.allclose(first[0].plan.actions, first[2].plan.actions)
    draws = [torch.randn(2, generator=episode_generator(0, one, k)) for k in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_the_stored_plan_can_be_scored_and_imagined_again(pool, rollout):
    wam, chunks = tiny.lively().eval(), rollout.decisions
    worst = (wam.log_prob(chunks.plan, tiny.CONFIG.flow) - chunks.plan.chain_log_prob).abs().max()
    assert worst < 1e-4
    features = wam.features(wam.encode(chunks.obs), chunks.plan.seed)
    assert torch.allclose(features, chunks.plan.features, atol=1e-4)


def test_success_clips_are_the_chunks_of_successful_episodes(rollout):
    weight = torch.arange(20.0)
    clip = success_clips(rollout, weight)
    rows = rollout.decisions[rollout.success[rollout.decisions.episode]]
    assert 0 < len(clip) == len(rows) < len(rollout.decisions)
    assert torch.equal(clip.weight, weight[rows.episode]) and torch.equal(
        clip.action_mask, rows.mask
    )
    assert torch.equal(clip.future, rows.frames)
    none = success_clips(replace(rollout, success=torch.zeros(20, dtype=torch.bool)), weight)
    assert len(none) == 0 and none.text == ()


def test_a_policy_at_a_bound_that_clones_itself_keeps_its_speed(rollout):
    """Clamped samples of one that pushes to a bound have a smaller mean than the policy."""
    chunks = rollout.decisions
    noise = torch.randn(chunks.plan.actions.shape, generator=torch.Generator().manual_seed(0))
    high = rollout.bounds[1]
    sampled = high + 0.3 * noise
    pushing = replace(chunks, plan=replace(chunks.plan, actions=sampled))
    won = torch.ones(20, dtype=torch.bool)
    clip = success_clips(replace(rollout, decisions=pushing, success=won), torch.ones(20))
    assert torch.allclose(clip.actions.mean((0, 1)), high, atol=0.05)
    assert (sampled.clamp(*rollout.bounds).mean((0, 1)) < high - 0.1).all()


def test_progress_is_told(pool):
    told = []
    collect(
        tiny.lively(),
        pool,
        tiny.starts(9),
        tiny.CONFIG.flow,
        seed=0,
        sampler="explore",
        on_done=told.append,
    )
    assert sum(told) == 9


def test_a_killed_worker_costs_its_episodes_only():
    wam, starts = tiny.lively(), tiny.starts(12)
    with tiny.build_pool(n_envs=4, n_workers=2) as pool:
        whole = collect(wam, pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore")
        plain, calls = pool.send, []

        def send(actions, active, starts):
            calls.append(active.any())
            if sum(calls) == 2:
                os.kill(pool.pids[0], signal.SIGKILL)
            plain(actions, active, starts)

        pool.send = send
        r = collect(wam, pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore")
    assert 1 <= r.lost <= 2 and len(r.starts) == 12 - r.lost == len(r.success) == len(
        r.length
    ) == len(r.stages)
    assert (
        rollout_metrics(r, torch.zeros(len(r.starts), dtype=torch.bool))["rollout/lost"] == r.lost
    )
    assert r.decisions.episode.unique().tolist() == list(range(len(r.starts)))
    kept = [starts.index(s) for s in r.starts]
    assert torch.equal(r.success, whole.success[kept]) and torch.equal(r.length, whole.length[kept])
    mine = torch.isin(whole.decisions.episode, torch.tensor(kept))
    assert (r.decisions.plan.actions - whole.decisions[mine].plan.actions).abs().max() < 1e-5


def test_a_worker_that_died_while_it_was_idle_costs_nothing():
    wam, starts = tiny.lively(), tiny.starts(6)
    with tiny.build_pool(n_envs=4, n_workers=2) as pool:
        whole = collect(wam, pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore")
        os.kill(pool.pids[0], signal.SIGKILL)
        again = collect(wam, pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore")
    assert (
        again.lost == 0
        and torch.equal(again.length, whole.length)
        and torch.equal(again.success, whole.success)
    )


@pytest.mark.parametrize("num_splits", [1, 3])
def test_splits_change_when_and_not_what(pool, rollout, num_splits):
    with tiny.build_pool(num_splits=num_splits) as other:
        again = tiny.explore(tiny.lively(), other, 20)
    assert torch.equal(again.length, rollout.length) and torch.equal(again.success, rollout.success)
    assert (again.decisions.plan.actions - rollout.decisions.plan.actions).abs().max() < 1e-5
    for r in (rollout, again):
        assert r.model_idle_s >= 0 and r.env_idle_s >= 0


def test_features_are_kept_within_the_budget_or_not_at_all(pool, rollout):
    size = rollout.decisions.plan.features.nbytes
    for mb, kept in ((size / 1e6, True), (size / 1e6 - 1e-3, False), (0, False)):
        r = collect(
            tiny.lively(),
            pool,
            tiny.starts(20),
            tiny.CONFIG.flow,
            seed=0,
            sampler="explore",
            cache_mb=mb,
        )
        assert r.decisions.plan.features.shape[1:] == (
            rollout.decisions.plan.features.shape[1:] if kept else (0, 0, 0)
        )
        assert rollout_metrics(r, torch.ones(20).bool())["rollout/feature_mb"] == kept * size / 1e6
        assert (r.decisions.plan.actions - rollout.decisions.plan.actions).abs().max() < 1e-5


def test_all_lost_is_said():
    with tiny.build_pool(n_envs=1, n_workers=1) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        plain = pool.send

        def send(actions, active, starts):
            if active.any():
                os.kill(pool.pids[0], signal.SIGKILL)
            plain(actions, active, starts)

        pool.send = send
        with pytest.raises(RuntimeError, match="every episode was lost"):
            collect(
                tiny.lively(), pool, tiny.starts(1), tiny.CONFIG.flow, seed=0, sampler="explore"
            )


@pytest.fixture(scope="module")
def pools():
    """Nobody solves it; chance decides; solved by the first step."""
    with ExitStack() as stack:
        envs = [replace(tiny.ENV, radius=radius, horizon=20) for radius in (0.01, 0.55, 9.0)]
        yield [stack.enter_context(tiny.build_pool(env=env, n_envs=4)) for env in envs]


@pytest.mark.parametrize(("group", "budget"), [(1, 100), (3, 200), (3, 60), (5, 299)])
def test_a_budget_of_control_steps_is_used_up_and_never_passed(pools, group, budget):
    starts = [s for s in tiny.starts(300 // group) for _ in range(group)]
    for pool in pools:
        limits = {"max_steps": budget, "group": group}
        r = collect(
            tiny.lively(), pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore", **limits
        )
        assert budget - group * 20 < r.steps <= budget and r.steps == r.length.sum()
        started = len(r.starts)
        assert r.starts == starts[:started]
        assert started % group == 0, "a group was torn"
        fits = [r.length[:n].sum() + group * 20 <= budget for n in range(0, started + 1, group)]
        assert fits == [True] * (started // group) + [False], (
            "the first groups, as long as another one fits"
        )
        for e in range(started):  # complete, though the budget ended
            rows = r.decisions[r.decisions.episode == e]
            assert rows.done.sum() == 1 and rows.executed.sum() == r.length[e]


def test_a_budget_does_not_depend_on_the_number_of_slots(pools):
    starts = [s for s in tiny.starts(60) for _ in range(2)]

    def run(pool):
        r = collect(
            tiny.lively(),
            pool,
            starts,
            tiny.CONFIG.flow,
            seed=2,
            sampler="explore",
            max_steps=500,
            group=2,
        )
        return len(r.starts), r.steps, r.success.tolist(), r.length.tolist()

    with tiny.build_pool(env=replace(tiny.ENV, horizon=20), n_envs=13) as wide:
        one = run(wide)
        assert one == run(pools[1]) and 0 < sum(one[2]) < one[0]
        assert one == run(wide)


def test_a_budget_that_is_never_reached_changes_nothing(pool, rollout):
    starts = tiny.starts(20)
    wide = collect(
        tiny.lively(), pool, starts, tiny.CONFIG.flow, seed=0, sampler="explore", max_steps=10**6
    )
    assert torch.equal(wide.length, rollout.length) and len(wide.starts) == 20
    assert torch.equal(wide.decisions.plan.actions, rollout.decisions.plan.actions)


def test_a_budget_that_does_not_hold_a_group_is_refused(pools):
    with pytest.raises(ValueError, match="allow 60 or more"):
        options = {"sampler": "explore", "max_steps": 59, "group": 3}
        collect(tiny.lively(), pools[0], tiny.starts(9), tiny.CONFIG.flow, seed=0, **options)


def test_attempts_reach_the_rollout_and_its_metrics():
    """The walk counts an attempt every third step,
    plus one for odd seeds, and a retry every seventh.
    """
    env = WalkConfig(horizon=20, solve_above=3.0)
    config = PoolConfig(n_envs=3, n_workers=1)
    model = replace(tiny.MODEL, world=replace(tiny.MODEL.world, patch=1))
    wam = model.build(views=2, image_hw=(6, 5), action_dim=3, proprio_dim=4)
    with config.build(env, n_exec=8, frame_offsets=(4, 8)) as pool:
        r = collect(wam, pool, tiny.starts(7), tiny.CONFIG.flow, seed=0, sampler="explore")
    odd = torch.tensor([s.seed % 2 for s in r.starts])
    assert r.counter_names == ("attempts", "retries")
    assert torch.equal(r.counters, torch.stack([r.length // 3 + odd, r.length // 7], 1))
    fresh = torch.ones(7, dtype=torch.bool)
    mixed = replace(
        r,
        counters=torch.stack([r.counters[:, 0], torch.tensor([0, 2, 1, 0, 0, 1, 0])], 1),
        success=torch.tensor([1, 1, 0, 0, 1, 1, 0]).bool(),
    )
    metrics = rollout_metrics(mixed, fresh)
    mean = pytest.approx(r.counters[:, 0].float().mean().item())
    assert metrics["rollout/attempts"] == metrics["rollout/counter/attempts"] == mean
    assert metrics["rollout/counter/retries"] == pytest.approx(4 / 7)
    assert metrics["rollout/reattempted"] == pytest.approx(3 / 7)
    assert metrics["rollout/recovered"] == pytest.approx(2 / 3)
    never = torch.stack([r.counters[:, 0], torch.zeros(7, dtype=torch.long)], 1)
    none = rollout_metrics(replace(r, counters=never), fresh)
    assert none["rollout/reattempted"] == 0 and "rollout/recovered" not in none
    other = rollout_metrics(replace(r, counter_names=("bumps", "falls")), fresh)
    assert other["rollout/counter/bumps"] == mean and "rollout/attempts" not in other
