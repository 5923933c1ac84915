"""Cores are shared out between ranks, simulators and torch."""

import os
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.rollout.collect import collect
from wamrl.runs.phases import fresh_model
from wamrl.runtime import cores


def test_ranks_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert (cores.cores(), cores.workers()) == (16, 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cores.workers() == 15
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert (cores.cores(), cores.workers()) == (2, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert (cores.cores(), cores.workers()) == (1, 1)


def test_the_model_takes_the_cores_that_the_simulators_leave(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    before, wam, seen = torch.get_num_threads(), tiny.lively(), []
    torch.set_num_threads(3)
    try:
        plain = wam.act
        wam.act = lambda *args: seen.append(torch.get_num_threads()) or plain(*args)
        with tiny.CONFIG.build_pool() as pool:
            assert pool.config.n_workers == 1
            collect(wam, pool, tiny.starts(2), tiny.CONFIG.flow, seed=0, sampler="explore")
        assert set(seen) == {2} and torch.get_num_threads() == 3
        with cores.threads_beside(7) as threads:
            assert threads == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_for_those_who_have_units_for_it(monkeypatch):
    """On GPUs always; on a CPU where torch names AMX, and not where it cannot say."""
    cfg = replace(tiny.CONFIG, model=replace(tiny.MODEL, compute="bfloat16"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert cores.fast_bfloat16("cpu") and fresh_model(cfg).compute == torch.bfloat16
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"}, raising=False
    )
    assert cores.fast_bfloat16("cuda:0") and not cores.fast_bfloat16("cpu")
    with pytest.raises(ValueError, match=r"bfloat16 needs a GPU or a CPU with AMX.*use float32"):
        fresh_model(cfg)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not cores.fast_bfloat16("cpu")
