import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.faulty import WalkConfig
from wamrl.pool.pool import PoolConfig
from wamrl.types import InitialState, Outcome

N_EXEC, OFFSETS, HISTORY = 5, (2, 5, 8), (-7, -3, 0)
CONFIG = PoolConfig(
    env=WalkConfig(),
    n_envs=5,
    n_workers=2,
    n_exec=N_EXEC,
    frame_offsets=OFFSETS,
    history_offsets=HISTORY,
)


def starts(count: int, first: int = 0) -> list[InitialState]:
    return [InitialState(split="train", index=first + i) for i in range(count)]


def actions(seed: int, batch: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, N_EXEC + 2, 3)).astype(np.float32)


class ByHand:
    """One bare environment, every frame kept."""

    def __init__(self, config: WalkConfig, start: InitialState) -> None:
        self.env = config.build()
        self.env.reset(start.seed)
        self.frames = [self.env.render()]

    def chunk(self, plan: np.ndarray) -> dict:
        begin = len(self.frames) - 1
        for action in plan[:N_EXEC]:
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


def assert_equal_by_hand(config: PoolConfig, chunks: int) -> list[dict]:
    """Step a pool and bare environments side by side until all are over; the last chunk of each."""
    hands = [ByHand(config.env, start) for start in starts(5)]
    last: list[dict] = [{} for _ in hands]
    with config.build() as pool:
        pool.reset(starts(5))
        for step in range(chunks):
            active, plan = pool.live, actions(step)
            outcome = pool.step(torch.from_numpy(plan), active)
            for i in torch.nonzero(active).flatten().tolist():
                last[i] = hands[i].chunk(plan[i])
                for name, expected in last[i].items():
                    assert np.array_equal(getattr(outcome, name)[i], expected), (step, i, name)
                assert np.array_equal(outcome.obs.proprio[i], hands[i].env.proprio())
                # also at the horizon, which is no multiple of the chunk
                if not last[i]["terminated"]:
                    assert np.array_equal(outcome.obs.frames[i], hands[i].history()), (step, i)
            idle = ~active
            assert not outcome.frames[idle].any() and not outcome.obs.frames[idle].any()
            assert not outcome.executed[idle].any() and not outcome.done[idle].any()
        assert not pool.live.any()
    return last


def test_equals_bare_environments_up_to_the_horizon():
    last = assert_equal_by_hand(CONFIG, 6)
    assert all(chunk["truncated"] and chunk["executed"] == 3 for chunk in last)


def test_equals_bare_environments_when_they_end_inside_a_chunk():
    last = assert_equal_by_hand(replace(CONFIG, env=WalkConfig(solve_above=2.0), n_workers=1), 6)
    assert any(chunk["success"] and chunk["executed"] < N_EXEC for chunk in last)


def test_first_observation_repeats_the_first_frame_and_idle_slots_are_zero():
    with CONFIG.build() as pool:
        obs = pool.reset([*starts(4), None])
        first = ByHand(CONFIG.env, starts(1)[0]).frames[0]
        assert all(np.array_equal(obs.frames[0, t], first) for t in range(len(HISTORY)))
        assert not obs.frames[4].any() and pool.live.tolist() == [True] * 4 + [False]
        assert obs.text == ("walk",) * 5


def test_refilling_slots_leaves_the_others_alone():
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        before = pool.step(actions(0), torch.ones(5, dtype=torch.bool)).obs
        obs = pool.reset_slots([1, 3], starts(2, first=10))
        kept = torch.tensor([True, False, True, False, True])
        assert torch.equal(obs.frames[kept], before.frames[kept])
        assert np.array_equal(
            obs.frames[3, -1], ByHand(CONFIG.env, starts(1, first=11)[0]).frames[0]
        )
        only = pool.step(actions(1), kept)
        assert only.executed.tolist() == [5, 0, 5, 0, 5] and pool.live.all()


def mask(*slots: int) -> np.ndarray:
    return np.isin(np.arange(5), slots)


def test_halves_sent_in_turn_equal_bare_environments():
    """Both halves have slots in both workers;
    slot 1 is refilled while slots 0, 2 and 4 are stepped.
    """
    hands, odd, even = [ByHand(CONFIG.env, start) for start in starts(5)], mask(1, 3), mask(0, 2, 4)
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        pool.send(actions(0), even)
        pool.send(actions(1), odd)
        for seed, half, other in ((0, even, odd), (1, odd, even)):
            out = pool.receive()
            assert (
                not out.executed[torch.from_numpy(other)].any()
                and not out.obs.frames[torch.from_numpy(other)].any()
            )
            for i in np.flatnonzero(half):
                assert np.array_equal(out.frames[i], hands[i].chunk(actions(seed)[i])["frames"])
                assert np.array_equal(out.obs.frames[i], hands[i].history())
        pool.send(actions(2), even)
        pool.send(actions(3), mask(3), {1: starts(1, first=30)[0]})
        pool.receive()
        out, fresh = pool.receive(), ByHand(CONFIG.env, starts(1, first=30)[0])
        assert np.array_equal(out.obs.frames[1], fresh.history()) and not out.frames[1].any()
        assert out.executed.tolist() == [0, 0, 0, 5, 0] and not out.done.any() and pool.live.all()
        assert np.array_equal(
            pool.step(actions(4), mask(1)).frames[1], fresh.chunk(actions(4)[1])["frames"]
        )


def test_a_buffer_shows_the_latest_outcome_and_all_others_stay_as_they_are():
    """Both halves in turn, once into a buffer each and once into new outcomes;
    the same, zero rows included.
    """
    kept: list[list] = []
    for buffered in (True, False):
        with CONFIG.build() as pool:
            pool.reset(starts(5))
            buffers = [pool.buffer(), pool.buffer()] if buffered else [None, None]
            pool.send(actions(0), mask(0, 2, 4))
            seen = []
            for step in range(12):
                rows = (mask(1, 3), mask(0, 2)) if step < 4 else (mask(1), mask(2, 4))
                pool.send(actions(step + 1), rows[step % 2])
                out = pool.receive(buffers[step % 2])
                assert not buffered or out is buffers[step % 2].outcome
                seen.append((out, copied(out)))
            kept.append([copy for _, copy in seen])
            stay = [all(map(torch.equal, copied(out), copy)) for out, copy in seen]
            assert (
                stay[-2:] == [True, True]
                and (all(stay) or buffered)
                and not (all(stay) and buffered)
            )
    for one, other in zip(*kept, strict=True):
        assert all(map(torch.equal, one, other))


def copied(outcome: Outcome) -> list[torch.Tensor]:
    flat = vars(outcome) | vars(outcome.obs)
    return [value.clone() for value in flat.values() if isinstance(value, torch.Tensor)]


def test_a_slot_is_not_sent_twice():
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        pool.send(actions(0), mask(0, 1))
        for again in (
            lambda: pool.send(actions(0), mask(1, 2)),
            lambda: pool.reset_slots([1], starts(1)),
        ):
            with pytest.raises(ValueError, match="none that is sent and not received"):
                again()
        # waits for what is on its way
        assert not pool.reset(starts(5)).frames[:, -1].flatten(1).eq(0).all(1).any()
        assert pool.step(actions(1), pool.live).executed.tolist() == [5] * 5


def test_a_lost_worker_takes_both_halves_along():
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        os.kill(pool.pids[1], signal.SIGKILL)  # owns slots 2, 3, 4
        pool.send(actions(0), mask(0, 2))
        pool.send(actions(0), mask(1, 3), {4: starts(1, first=9)[0]})
        assert pool.receive().lost.tolist() == [False, False, True, False, False]
        pool.send(actions(0), mask(0), {2: starts(1, first=8)[0]})  # to the new worker
        second = pool.receive()
        assert second.lost.tolist() == [
            False,
            False,
            False,
            True,
            True,
        ] and second.executed.tolist() == [0, 5, 0, 0, 0]
        third = pool.receive()
        assert not third.lost.any() and pool.live.tolist() == [True, True, True, False, False]
        assert np.array_equal(
            third.obs.frames[2], ByHand(CONFIG.env, starts(1, first=8)[0]).history()
        )


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_lost_worker_is_replaced_and_its_episodes_are_marked(fault):
    bad = starts(5)[3].seed
    config = replace(CONFIG, env=WalkConfig(fault=fault, bad_seeds=(bad,)), timeout_s=1.5)
    with config.build() as pool:
        pool.reset(starts(5))
        pids = pool.pids
        outcome = pool.step(actions(0), pool.live)
        # the second worker owns slots 2, 3, 4
        assert outcome.lost.tolist() == [False, False, True, True, True]
        assert outcome.done.tolist() == outcome.lost.tolist() and outcome.executed.tolist() == [
            5,
            5,
            0,
            0,
            0,
        ]
        assert pool.live.tolist() == [True, True, False, False, False]
        assert pool.pids[0] == pids[0] and pool.pids[1] != pids[1] and not _alive(pids[1])
        pool.reset_slots([2, 3, 4], starts(3, first=20))
        again = pool.step(actions(1), pool.live)
        assert not again.lost.any() and again.executed.tolist() == [5] * 5
        hand = ByHand(CONFIG.env, starts(1, first=20)[0])
        assert np.array_equal(again.frames[2], hand.chunk(actions(1)[2])["frames"])


def test_worker_lost_between_chunks_is_told_once_by_the_next_step():
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        os.kill(pool.pids[0], signal.SIGKILL)
        pool.reset_slots([0], starts(1, first=7))  # noticed here: slot 1 ran in the same process
        assert pool.live.all()
        outcome = pool.step(actions(0), pool.live)
        assert (
            outcome.lost.tolist() == [False, True, False, False, False] and outcome.executed[0] == 5
        )
        assert (
            not pool.live[1]
            and not pool.step(actions(1), torch.ones(5, dtype=torch.bool)).lost.any()
        )


def test_worker_that_always_dies_is_given_up():
    config = replace(
        CONFIG, n_workers=1, n_envs=1, env=WalkConfig(fault="kill", bad_seeds=(starts(1)[0].seed,))
    )
    with config.build() as pool:
        for _ in range(4):
            pool.reset(starts(1))
            assert pool.step(actions(0, 1), pool.live).lost.all()
        pool.reset(starts(1))
        with pytest.raises(RuntimeError, match="5 times in a row"):
            pool.step(actions(0, 1), pool.live)


def test_exceptions_of_an_environment_are_shown():
    bad = (starts(1)[0].seed,)
    for fault, kind, text in (
        ("raise", RuntimeError, "KeyError: 'joint7'"),
        ("sentence", ValueError, "^the scene fell apart: lower the action scale$"),
    ):
        with replace(CONFIG, env=WalkConfig(fault=fault, bad_seeds=bad)).build() as pool:
            pool.reset(starts(5))
            with pytest.raises(kind, match=text):
                pool.step(actions(0), pool.live)
            with pytest.raises(RuntimeError, match="the pool is closed"):
                pool.reset(starts(5))


def test_bad_input_is_one_sentence():
    with pytest.raises(ValueError, match="^no such scene: choose another$"):
        replace(CONFIG, env=WalkConfig(fault="build")).build()
    for change in (
        {"n_workers": 6},
        {"n_exec": 0},
        {"frame_offsets": (0, 4)},
        {"frame_offsets": (4, 2)},
        {"history_offsets": (-2,)},
        {"history_offsets": (0, -2)},
        {"timeout_s": 0.0},
    ):
        with pytest.raises(ValueError):
            replace(CONFIG, **change).validate()
    with CONFIG.build() as pool:
        pool.reset(starts(5))
        live = pool.live
        with pytest.raises(ValueError, match="4 starts for 5 slots"):
            pool.reset(starts(4))
        with pytest.raises(ValueError, match="float64"):
            pool.step(actions(0).astype(np.float64), live)
        with pytest.raises(ValueError, match="N >= 5"):
            pool.step(actions(0)[:, :4], live)
        with pytest.raises(ValueError, match="NaN"):
            pool.step(actions(0) * np.float32(np.nan), live)
        pool.reset(starts(5))
        # nothing was lost by the complaints
        assert pool.step(actions(0), pool.live).executed.sum() == 25


def test_nothing_is_left_behind():
    gc.collect()  # what earlier tests left
    fds = _open_fds()
    for _ in range(2):
        pool = replace(CONFIG, n_workers=1).build()
        pool.reset(starts(5))
        pids = pool.pids
        pool.close()
        pool.close()
        assert not _alive(pids[0])
    pool = replace(CONFIG, n_workers=1).build()
    pids = pool.pids
    del pool  # forgotten, not closed
    gc.collect()
    assert not _alive(pids[0]) and _open_fds() == fds
    assert "wamrl-pool" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), 9)", "raise KeyError('a bug of the caller')", "sys.exit(3)"]
)
def test_workers_end_with_their_parent_even_inside_a_hung_environment(end):
    code = f"""
import os, sys, threading, time
from tests.pool.test_pool import CONFIG, WalkConfig, starts, actions, replace
pool = replace(CONFIG, env=WalkConfig(fault="hang", bad_seeds=(starts(1)[0].seed,))).build()
pool.reset(starts(5))
print(*pool.pids, flush=True)
pool.send(actions(0), pool.live)
time.sleep(0.3)
{end}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    deadline = time.monotonic() + 5
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
