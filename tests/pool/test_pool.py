import gc
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.faulty import WalkConfig
from tests.support.pools import begin, step
from tests.support.processes import runs, wait_for_end
from wamrl.pool.pool import Pool, PoolConfig
from wamrl.types import InitialState

N_EXEC, OFFSETS, HISTORY = 5, (2, 5, 8), (-7, -3, 0)
WALK = WalkConfig()
CONFIG = PoolConfig(n_envs=5, n_workers=2)
LOOKS = {"n_exec": N_EXEC, "frame_offsets": OFFSETS, "history_offsets": HISTORY}


def build(env: WalkConfig = WALK, **changes) -> Pool:
    """`CONFIG` with these changes, or those of `LOOKS`, in the walk."""
    looks = {name: changes.pop(name, LOOKS[name]) for name in LOOKS}
    return replace(CONFIG, **changes).build(env, **looks)


def starts(count: int, first: int = 0) -> list[InitialState]:
    return [InitialState(split="train", index=first + i) for i in range(count)]


def actions(seed: int, batch: int = 5) -> torch.Tensor:
    plan = np.random.default_rng(seed).normal(size=(batch, N_EXEC + 2, 3))
    return torch.from_numpy(plan.astype(np.float32))


class ByHand:
    """One bare environment, every frame kept."""

    def __init__(self, config: WalkConfig, start: InitialState) -> None:
        self.env = config.build()
        self.env.reset(start.seed)
        self.frames = [self.env.render()]

    def chunk(self, plan: torch.Tensor) -> dict:
        begin = len(self.frames) - 1
        for action in plan[:N_EXEC].numpy():
            result = self.env.step(action)
            self.frames.append(self.env.render())
            if result.terminated or result.truncated:
                break
        executed = len(self.frames) - 1 - begin
        seen = [offset <= executed for offset in OFFSETS]
        picks = [
            self.frames[begin + o] if s else 0 * self.frames[0]
            for o, s in zip(OFFSETS, seen, strict=True)
        ]
        names = ("success", "terminated", "truncated", "stages", "counters")
        flags = {name: getattr(result, name) for name in names}
        return flags | {"executed": executed, "verifiable": seen, "frames": np.stack(picks)}

    def history(self) -> np.ndarray:
        return np.stack([self.frames[max(0, len(self.frames) - 1 + h)] for h in HISTORY])


def assert_equal_by_hand(env: WalkConfig, chunks: int, **changes) -> list[dict]:
    """Step a pool and bare environments side by side until all are over; the last chunk of each."""
    hands = [ByHand(env, start) for start in starts(5)]
    last: list[dict] = [{} for _ in hands]
    live = torch.ones(5, dtype=torch.bool)
    with build(env, **changes) as pool:
        begin(pool, starts(5))
        for number in range(chunks):
            plan = actions(number)
            outcome = step(pool, plan)  # slots whose episode is over are masked
            for i in torch.nonzero(live).flatten().tolist():
                last[i] = hands[i].chunk(plan[i])
                for name, expected in last[i].items():
                    assert np.array_equal(getattr(outcome, name)[i], expected), (number, i, name)
                assert np.array_equal(outcome.obs.proprio[i], hands[i].env.proprio())
                # also at the horizon, which is no multiple of the chunk
                if not last[i]["terminated"]:
                    assert np.array_equal(outcome.obs.frames[i], hands[i].history()), (number, i)
            assert not outcome.frames[~live].any() and not outcome.obs.frames[~live].any()
            assert not outcome.executed[~live].any() and not outcome.done[~live].any()
            live &= ~outcome.done
        assert not live.any()
    return last


def test_equals_bare_environments_up_to_the_horizon():
    last = assert_equal_by_hand(WALK, 6)
    assert all(chunk["truncated"] and chunk["executed"] == 3 for chunk in last)


def test_equals_bare_environments_when_they_end_inside_a_chunk():
    last = assert_equal_by_hand(WalkConfig(solve_above=2.0), 6, n_workers=1)
    assert any(chunk["success"] and chunk["executed"] < N_EXEC for chunk in last)


def test_first_observation_repeats_the_first_frame_and_idle_slots_are_zero():
    with build() as pool:
        outcome = begin(pool, [*starts(4), None])
        obs = outcome.obs
        first = ByHand(WALK, starts(1)[0]).frames[0]
        assert all(np.array_equal(obs.frames[0, t], first) for t in range(len(HISTORY)))
        assert not obs.frames[4].any() and not outcome.executed.any() and not outcome.done.any()
        assert obs.text == ("walk",) * 5
        assert step(pool, actions(0)).executed.tolist() == [5, 5, 5, 5, 0]


def test_refilling_slots_leaves_the_others_alone():
    with build() as pool:
        begin(pool, starts(5))
        before = step(pool, actions(0))
        assert before.frames[1].any()
        fresh = begin(pool, [starts(1, first=10)[0], None, starts(1, first=11)[0]], first=1)
        for row, start in ((1, 10), (3, 11)):
            first = ByHand(WALK, starts(1, first=start)[0]).frames[0]
            assert np.array_equal(fresh.obs.frames[row, -1], first)
        # nothing of the episode before is left
        assert not fresh.frames.any() and not fresh.executed.any() and not fresh.verifiable.any()
        kept = torch.tensor([True, False, True, False, True])
        assert not fresh.obs.frames[kept].any()
        only = step(pool, actions(1), kept)
        assert only.executed.tolist() == [5, 0, 5, 0, 5]
        hand = ByHand(WALK, starts(1)[0])
        hand.chunk(actions(0)[0])
        assert np.array_equal(only.frames[0], hand.chunk(actions(1)[0])["frames"])
        assert step(pool, actions(2)).executed.tolist() == [5] * 5


def mask(*slots: int) -> torch.Tensor:
    return torch.isin(torch.arange(5), torch.tensor(slots))


def test_halves_sent_in_turn_equal_bare_environments():
    """Both halves have slots in both workers;
    slot 1 is refilled while slots 0, 2 and 4 are stepped.
    """
    hands = [ByHand(WALK, start) for start in starts(5)]
    odd = mask(1, 3)
    even = mask(0, 2, 4)
    with build() as pool:
        begin(pool, starts(5))
        pool.send(actions(0), even, {})
        pool.send(actions(1), odd, {})
        for seed, half, other in ((0, even, odd), (1, odd, even)):
            out = pool.receive()
            assert not out.executed[other].any() and not out.obs.frames[other].any()
            for i in half.nonzero().flatten().tolist():
                assert np.array_equal(out.frames[i], hands[i].chunk(actions(seed)[i])["frames"])
                assert np.array_equal(out.obs.frames[i], hands[i].history())
        pool.send(actions(2), even, {})
        pool.send(actions(3), mask(1, 3), {1: starts(1, first=30)[0]})
        pool.receive()
        out = pool.receive()
        fresh = ByHand(WALK, starts(1, first=30)[0])
        assert np.array_equal(out.obs.frames[1], fresh.history()) and not out.frames[1].any()
        assert out.executed.tolist() == [0, 0, 0, 5, 0] and not out.done.any()
        assert np.array_equal(
            step(pool, actions(4), mask(1)).frames[1], fresh.chunk(actions(4)[1])["frames"]
        )


def test_an_outcome_stays_as_it_is():
    """While later chunks of the same slots are executed."""
    with build() as pool:
        begin(pool, starts(5))
        first = step(pool, actions(0))
        frames = first.frames.clone()
        proprio = first.obs.proprio.clone()
        second = step(pool, actions(1))
        assert torch.equal(first.frames, frames) and torch.equal(first.obs.proprio, proprio)
        assert not torch.equal(second.frames, frames)


def test_a_slot_is_not_sent_twice():
    with build() as pool:
        begin(pool, starts(5))
        pool.send(actions(0), mask(0, 1), {})
        for again in (
            lambda: pool.send(actions(0), mask(1, 2), {}),
            lambda: pool.send(actions(0), mask(), {1: starts(1)[0]}),
        ):
            with pytest.raises(ValueError, match="sent that is not received yet"):
                again()
        pool.reset()  # waits for what is on its way
        assert not step(pool, actions(1)).executed.any()
        assert not begin(pool, starts(5)).obs.frames[:, -1].flatten(1).eq(0).all(1).any()
        assert step(pool, actions(1)).executed.tolist() == [5] * 5


def test_a_lost_worker_takes_both_halves_along():
    with build() as pool:
        begin(pool, starts(5))
        os.kill(pool.pids[1], signal.SIGKILL)  # owns slots 2, 3, 4
        pool.send(actions(0), mask(0, 2), {})
        pool.send(actions(0), mask(1, 3), {4: starts(1, first=9)[0]})
        assert pool.receive().lost.tolist() == [False, False, True, False, False]
        pool.send(actions(0), mask(0), {2: starts(1, first=8)[0]})  # to the new worker
        second = pool.receive()
        assert second.lost.tolist() == [False, False, False, True, True]
        assert second.executed.tolist() == [0, 5, 0, 0, 0]
        third = pool.receive()
        fresh = ByHand(WALK, starts(1, first=8)[0])
        assert not third.lost.any() and np.array_equal(third.obs.frames[2], fresh.history())
        assert step(pool, actions(1)).executed.tolist() == [5, 5, 5, 0, 0]


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_lost_worker_is_replaced_and_its_episodes_are_marked(fault):
    bad = starts(5)[3].seed
    with build(WalkConfig(fault=fault, bad_seeds=(bad,)), timeout_s=1.5) as pool:
        begin(pool, starts(5))
        pids = pool.pids
        outcome = step(pool, actions(0))
        # the second worker owns slots 2, 3, 4
        assert outcome.lost.tolist() == [False, False, True, True, True]
        assert outcome.done.tolist() == outcome.lost.tolist()
        assert outcome.executed.tolist() == [5, 5, 0, 0, 0]
        assert not outcome.frames[2:].any() and not outcome.obs.frames[2:].any()
        assert pool.pids[0] == pids[0] and pool.pids[1] != pids[1] and not runs(pids[1])
        begin(pool, starts(3, first=20), first=2)
        again = step(pool, actions(1))
        assert not again.lost.any() and again.executed.tolist() == [5] * 5
        hand = ByHand(WALK, starts(1, first=20)[0])
        assert np.array_equal(again.frames[2], hand.chunk(actions(1)[2])["frames"])


def test_worker_lost_between_chunks_is_told_once():
    with build() as pool:
        begin(pool, starts(5))
        os.kill(pool.pids[0], signal.SIGKILL)
        # noticed here; slot 1 ran in the same process
        assert begin(pool, starts(1, first=7)).lost.tolist() == [True] + [False] * 4
        assert not begin(pool, starts(1, first=7)).lost.any()
        outcome = step(pool, actions(0))
        assert outcome.lost.tolist() == [False, True, False, False, False]
        assert outcome.executed.tolist() == [5, 0, 5, 5, 5]
        assert not step(pool, actions(1)).lost.any()


def test_worker_that_always_dies_is_given_up():
    env = WalkConfig(fault="kill", bad_seeds=(starts(1)[0].seed,))
    with build(env, n_workers=1, n_envs=1) as pool:
        for _ in range(4):
            begin(pool, starts(1))
            assert step(pool, actions(0, 1)).lost.all()
        begin(pool, starts(1))
        with pytest.raises(RuntimeError, match="5 times in a row"):
            step(pool, actions(0, 1))


def test_exceptions_of_an_environment_are_shown():
    bad = (starts(1)[0].seed,)
    for fault, kind, text in (
        ("raise", RuntimeError, "KeyError: 'joint7'"),
        ("sentence", ValueError, f"^walk, seed {bad[0]}, .* 3: the scene fell apart: lower the"),
    ):
        with build(WalkConfig(fault=fault, bad_seeds=bad)) as pool:
            begin(pool, starts(5))
            with pytest.raises(kind, match=text):
                step(pool, actions(0))
            with pytest.raises(RuntimeError, match="the pool is closed"):
                begin(pool, starts(5))


@dataclass(frozen=True, kw_only=True)
class SecretConfig(WalkConfig):
    """Its answer does not travel."""

    answer: object = field(default_factory=lambda: lambda: 42)


class StrangeConfig(WalkConfig):
    """It leaves as one thing and cannot arrive."""

    def __reduce__(self):
        return int, ("not a number",)


def test_an_environment_that_cannot_travel_is_one_sentence():
    with pytest.raises(ValueError, match="^this cannot travel to a worker process"):
        build(SecretConfig())
    with pytest.raises(ValueError, match="^a worker process cannot load .* not in the running"):
        build(StrangeConfig())


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="^no such scene: choose another$"):
        build(WalkConfig(fault="build"))
    for change in (
        {"n_envs": 0},
        {"n_workers": -1},
        {"num_splits": 0},
        {"n_exec": 0},
        {"frame_offsets": (0, 4)},
        {"frame_offsets": (4, 2)},
        {"history_offsets": (-2,)},
        {"history_offsets": (0, -2)},
        {"timeout_s": 0.0},
    ):
        with pytest.raises(ValueError, match="is not possible"):
            build(**change)
    with build(n_workers=9) as pool:
        assert pool.config.n_workers == len(pool.pids) == 5  # one for each slot
        begin(pool, starts(5))
        with pytest.raises(ValueError, match="float64"):
            step(pool, actions(0).double())
        with pytest.raises(ValueError, match=r"float32 \(5, 5, 3\), or longer"):
            step(pool, actions(0)[:, :4])
        with pytest.raises(ValueError, match="NaN"):
            step(pool, actions(0) * np.nan)
        # nothing was lost by the complaints
        assert step(pool, actions(0)).executed.sum() == 25


def test_nothing_is_left_behind():
    gc.collect()  # what earlier tests left
    fds = _open_fds()
    for _ in range(2):
        pool = build(n_workers=1)
        begin(pool, starts(5))
        pids = pool.pids
        pool.close()
        pool.close()
        assert not runs(pids[0])
    pool = build(n_workers=1)
    pids = pool.pids
    del pool  # forgotten, not closed
    gc.collect()
    assert not runs(pids[0]) and _open_fds() == fds
    assert "wamrl-pool" not in Path("/proc/self/maps").read_text()


def test_workers_import_no_torch():
    with build() as pool:
        for pid in pool.pids:
            assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), 9)", "raise KeyError('a bug of the caller')", "sys.exit(3)"]
)
def test_workers_end_with_their_parent_even_inside_a_hung_environment(end):
    code = f"""
import os, sys, threading, time
from tests.pool.test_pool import WalkConfig, actions, begin, build, mask, starts
pool = build(WalkConfig(fault="hang", bad_seeds=(starts(1)[0].seed,)))
begin(pool, starts(5))
print(*pool.pids, flush=True)
pool.send(actions(0), mask(0, 1, 2, 3, 4), {{}})
time.sleep(0.3)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    wait_for_end(pids, seconds=5.0)


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
