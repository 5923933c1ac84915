"""The pool on a Ray cluster of two nodes (both on this machine):
the same chunks, and a node may die.
"""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pool.test_pool import actions, assert_equal_by_hand, build, mask, starts
from tests.support import tiny
from tests.support.faulty import WalkConfig
from tests.support.pools import begin, step
from wamrl.rollout.collect import collect

pytest.importorskip("ray", reason="needs pip install -e '.[ray]'")
RAY = {"backend": "ray", "ray_address": "auto"}


@pytest.fixture(scope="module")
def cluster():
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    # two workers: one on each node
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_it_equals_bare_environments(cluster):
    last = assert_equal_by_hand(WalkConfig(), 6, **RAY)
    assert all(chunk["truncated"] and chunk["executed"] == 3 for chunk in last)


def test_a_rollout_is_bitwise_that_of_processes(cluster):
    rollouts = []
    for changes in ({}, RAY):
        with tiny.build_pool(n_workers=2, **changes) as pool:
            rollouts.append(tiny.explore(tiny.lively(), pool, 12))
            assert pool.busy_s > 0
    a, b = rollouts
    assert torch.equal(a.success, b.success) and torch.equal(a.decisions.frames, b.decisions.frames)
    assert torch.equal(a.decisions.plan.actions, b.decisions.plan.actions)


@pytest.mark.parametrize("fault", ["kill", "hang"])
def test_a_lost_worker_is_replaced_and_takes_both_halves_along(cluster, fault):
    bad = starts(5)[3].seed
    with build(WalkConfig(fault=fault, bad_seeds=(bad,)), timeout_s=4.0, **RAY) as pool:
        begin(pool, starts(5))
        pool.send(actions(0), mask(0, 3), {})  # the second worker owns slots 2, 3, 4
        pool.send(actions(0), mask(1, 2), {})
        first, second = pool.receive(), pool.receive()
        assert first.lost.tolist() == [False, False, False, True, False] and first.executed[0] == 5
        assert (
            second.lost.tolist() == [False, False, True, False, False] and second.executed[1] == 5
        )
        begin(pool, starts(3, first=20), first=2)
        assert step(pool, actions(1)).executed.tolist() == [5] * 5


def test_exceptions_of_an_environment_are_shown(cluster):
    bad = starts(5)[3].seed
    with build(WalkConfig(fault="raise", bad_seeds=(bad,)), **RAY) as pool:
        begin(pool, starts(5))
        with pytest.raises(RuntimeError, match="an environment failed with"):
            step(pool, actions(0))


def test_a_node_that_dies_costs_its_episodes_only(cluster):
    """In the middle of a rollout; its worker comes back on a node that has joined."""
    wam, starts_ = tiny.lively(), tiny.starts(12)
    with tiny.build_pool(n_envs=4, n_workers=2) as pool:
        whole = collect(wam, pool, starts_, tiny.CONFIG.flow, seed=0, sampler="explore")
    with tiny.build_pool(n_envs=4, n_workers=2, **RAY) as pool:
        plain, calls, pids = pool.send, [], pool.pids

        def send(actions, active, fresh):
            calls.append(bool(active.any()))
            if sum(calls) == 2:
                cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
                cluster.remove_node(cluster.second, allow_graceful=False)
                wait_for(lambda: not all(map(alive, pids)))  # a worker ends when it misses its node
            plain(actions, active, fresh)

        pool.send = send
        r = collect(wam, pool, starts_, tiny.CONFIG.flow, seed=0, sampler="explore")
    kept = [starts_.index(s) for s in r.starts]
    assert 1 <= r.lost <= 2 and len(kept) == 12 - r.lost
    assert torch.equal(r.success, whole.success[kept]) and torch.equal(r.length, whole.length[kept])
    mine = torch.isin(whole.decisions.episode, torch.tensor(kept))
    assert np.array_equal(r.decisions.frames.numpy(), whole.decisions[mine].frames.numpy())


def test_without_a_cluster_it_says_how_to_start_one(cluster, monkeypatch):
    import ray

    from wamrl.pool import ray as ray_workers

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody")))
    with pytest.raises(
        ValueError, match="no Ray cluster answers at 'auto' .*: start one with `ray start --head`"
    ):
        ray_workers.connect("auto")
