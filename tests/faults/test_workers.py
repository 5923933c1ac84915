"""A simulator's worker that dies in any way is replaced, and only its own episodes are lost; one
that fails in words ends the run with them. Hung and slow ones: test_hangs.py; wrong shapes, NaN and
results without sense: tests/envs/test_checked.py.
"""

from __future__ import annotations

import pytest

from tests.pool.test_pool import actions, build, starts
from tests.support.faulty import WalkConfig
from tests.support.pools import begin, step
from tests.support.processes import runs
from wamrl.runtime.log import console

BAD = (starts(5)[3].seed,)  # in the second worker, which owns slots 2, 3 and 4
DEAD = {
    "kill": "died",
    "exit": "died",
    "crash": "died",
    "garbage": "answered nonsense",
    "hang": "hangs: no control step for 1 s",
}
SAID = {
    "raise": (RuntimeError, "KeyError: 'joint7'"),
    "sentence": (ValueError, "the scene fell apart: lower the action scale"),
    "memory": (RuntimeError, "MemoryError: Unable to allocate 8.00 PiB"),
}


@pytest.mark.parametrize("fault", DEAD)
def test_a_dead_worker_costs_its_episodes(fault):
    with (
        build(WalkConfig(fault=fault, bad_seeds=BAD), timeout_s=1.0) as pool,
        console.capture() as said,
    ):
        begin(pool, starts(5))
        before = pool.pids
        outcome = step(pool, actions(0))
        assert outcome.lost.tolist() == [False, False, True, True, True]
        assert outcome.executed.tolist() == [5, 5, 0, 0, 0]
        assert pool.pids[0] == before[0] and not runs(before[1])
        begin(pool, starts(3, first=20), first=2)
        assert step(pool, actions(1)).executed.tolist() == [5] * 5
    assert f"worker {before[1]} {DEAD[fault]}" in said.get()


@pytest.mark.parametrize("fault", SAID)
def test_an_environment_that_fails_in_words_is_named(fault):
    kind, words = SAID[fault]
    with build(WalkConfig(fault=fault, bad_seeds=BAD)) as pool:
        begin(pool, starts(5))
        pids = pool.pids
        with pytest.raises(kind, match=f"walk, seed {BAD[0]}, control step 3: {words}"):
            step(pool, actions(0))
    assert not any(map(runs, pids))
