"""Evaluation: the held-out states, the same for every model, and the copy ratio."""

import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny
from wamrl.evaluate import (
    CHOOSE_FROM,
    EvalConfig,
    choose_sampler,
    copy_ratio,
    evaluate,
    glance,
    rollout_clip,
)
from wamrl.rollout.collect import collect
from wamrl.stats.paired import wilson
from wamrl.types import SAMPLERS, SPLITS, InitialState


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.build_pool() as pool:
        yield pool


def test_the_same_held_out_states_for_every_model(pool):
    cfg = EvalConfig(episodes=10)
    options = {"seed": 0, "sampler": "ode"}
    a, again = (evaluate(tiny.lively(), pool, cfg, tiny.CONFIG.flow, **options) for _ in range(2))
    b = evaluate(tiny.lively(seed=1), pool, cfg, tiny.CONFIG.flow, **options)
    assert a.starts == b.starts == [InitialState(split="eval", index=i) for i in range(10)]
    assert torch.equal(a.decisions.plan.actions, again.decisions.plan.actions)
    first = [r.decisions[r.decisions.step == 0] for r in (a, b)]
    assert torch.equal(first[0].obs.frames, first[1].obs.frames)
    assert torch.equal(first[0].plan.seed, first[1].plan.seed)
    assert not torch.equal(first[0].plan.actions, first[1].plan.actions)
    assert a.decisions.plan.chain_x.shape[1] == 0  # noise-free


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_exploration_noise_matters_only_to_who_explores(pool, sampler):
    cfg = EvalConfig(episodes=3)
    flows = [replace(tiny.CONFIG.flow, noise=noise) for noise in (0.1, 0.9)]
    a, b = (evaluate(tiny.lively(), pool, cfg, flow, seed=0, sampler=sampler) for flow in flows)
    first = [rollout.decisions[rollout.decisions.step == 0].plan.actions for rollout in (a, b)]
    assert torch.equal(*first) == (sampler != "explore")


def test_each_sampler_is_another_policy(pool):
    cfg = EvalConfig(episodes=3)
    first = {}
    for sampler in SAMPLERS:
        chunks = evaluate(
            tiny.lively(), pool, cfg, tiny.CONFIG.flow, seed=0, sampler=sampler
        ).decisions
        first[sampler] = chunks[chunks.step == 0].plan.actions
    for one, other in combinations(SAMPLERS, 2):
        assert not torch.equal(first[one], first[other]), (one, other)


class Scripted:
    """Collects nothing: each sampler wins a given share of the states it is asked for."""

    def __init__(self, rates: dict[str, float]):
        self.rates = rates
        self.asked: list[InitialState] = []

    def __call__(self, wam, pool, starts, flow, *, sampler, **options) -> SimpleNamespace:
        self.asked += starts
        wins = round(self.rates[sampler] * len(starts))
        return SimpleNamespace(success=torch.arange(len(starts)) < wins)


def test_the_best_sampler_on_training_states_comes_first(monkeypatch):
    scripted = Scripted({"explore": 0.5, "ode": 0.8, "zero": 0.2})
    monkeypatch.setattr("wamrl.evaluate.collect", scripted)
    rates = choose_sampler(None, None, EvalConfig(choose=10), tiny.CONFIG.flow, seed=0)
    assert list(rates) == ["ode", "explore", "zero"]
    assert rates == pytest.approx(scripted.rates)
    assert {s.split for s in scripted.asked} == {"train"} and len(set(scripted.asked)) == 10
    assert min(s.index for s in scripted.asked) > 1_000_000, "no state that a run trains on"
    scripted.rates = dict.fromkeys(SAMPLERS, 0.4)
    equal = choose_sampler(None, None, EvalConfig(choose=10), tiny.CONFIG.flow, seed=0)
    assert list(equal) == ["zero", "ode", "explore"]


def test_the_choice_is_what_each_sampler_really_does(pool):
    """Against a rollout of one's own on the same states."""
    cfg = EvalConfig(choose=12)
    rates = choose_sampler(tiny.lively(), pool, cfg, tiny.CONFIG.flow, seed=3)
    starts = [InitialState(split="train", index=CHOOSE_FROM + i) for i in range(12)]
    for sampler, rate in rates.items():
        own = collect(tiny.lively(), pool, starts, tiny.CONFIG.flow, seed=3, sampler=sampler)
        assert rate == pytest.approx(own.success.float().mean().item())


def test_a_glance_is_a_point_of_the_curve(pool):
    cfg = EvalConfig(during=8, episodes=20)
    wam = tiny.lively()
    wam.sampler = "explore"
    point = glance(wam, pool, cfg, tiny.CONFIG.flow, seed=0)
    for sampler in SAMPLERS:
        whole = evaluate(wam, pool, cfg, tiny.CONFIG.flow, seed=0, sampler=sampler)
        assert point[f"eval/success/{sampler}"] == pytest.approx(
            whole.success[:8].float().mean().item()
        )
    assert point["eval/success"] == point["eval/success/explore"] and point["eval/episodes"] == 8
    wins = round(8 * point["eval/success"])
    assert (point["eval/success_low"], point["eval/success_high"]) == wilson(wins, 8)
    assert SAMPLERS[int(point["eval/sampler"])] == "explore"


def test_splits_are_disjoint():
    ranges = [
        (InitialState(split=s, index=0).seed, InitialState(split=s, index=99_999_999).seed)
        for s in SPLITS
    ]
    assert all(a[1] < b[0] for a, b in zip(ranges, ranges[1:], strict=False))
    with pytest.raises(ValueError, match="no such start"):
        _ = InitialState(split="eval", index=100_000_000).seed


def reference_ratio(wam, clip, steps):
    imagined = wam.imagine(clip.obs, torch.arange(len(clip)), steps)
    out = []
    for f in range(clip.future.shape[1]):
        ours = copied = 0.0
        for row in range(len(clip)):
            if clip.future_mask[row, f]:
                target = clip.future[row, f].float() / 255
                ours += (imagined[row, f] - target).square().mean().item()
                copied += (clip.frames[row, -1].float() / 255 - target).square().mean().item()
        out.append(ours / copied)
    return out


def test_the_copy_ratio_against_a_plain_loop():
    clip = tiny.demos().at(torch.arange(0, 78, 3))
    assert not clip.future_mask.all()
    wam = tiny.lively().eval()
    assert copy_ratio(wam, clip, 2, batch=64).tolist() == pytest.approx(
        reference_ratio(wam, clip, 2), rel=1e-4
    )
    assert copy_ratio(wam, clip, 2, batch=7).tolist() == pytest.approx(
        copy_ratio(wam, clip, 2).tolist(), rel=1e-4
    )


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_model_that_copies_has_ratio_one(steps):
    clip = tiny.demos().at(torch.arange(20))
    assert copy_ratio(tiny.fresh(), clip, steps).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_a_perfect_imagination_has_ratio_zero():
    clip, wam = tiny.demos().at(torch.arange(20)), tiny.fresh()
    wam.imagine = lambda obs, seeds, steps: clip.future.float() / 255
    assert copy_ratio(wam, clip, 2).tolist() == [0, 0]


def test_a_scene_that_never_moves_gives_a_number():
    clip = tiny.demos().at(torch.arange(4))
    still = replace(clip, future=clip.frames[:, -1:].expand_as(clip.future).clone())
    assert copy_ratio(tiny.lively(), still, 2).isfinite().all()


def test_an_offset_that_no_clip_reaches_has_no_ratio():
    """NaN, not 0, which would be a perfect imagination; and none of all offsets without a clip."""
    clip = tiny.demos().at(torch.arange(20))
    clip.future_mask[:, 1] = False
    near, far = copy_ratio(tiny.fresh(), clip, 1).tolist()
    assert near == pytest.approx(1, abs=1e-3) and math.isnan(far)
    assert copy_ratio(tiny.fresh(), clip[slice(0, 0)], 1).isnan().all()


def test_clips_of_a_rollout_are_its_chunks(pool):
    rollout = evaluate(
        tiny.lively(), pool, EvalConfig(episodes=6), tiny.CONFIG.flow, seed=0, sampler="ode"
    )
    clip, few = rollout_clip(rollout), rollout_clip(rollout, limit=5)
    assert len(clip) == len(rollout.decisions) and len(few) == 5
    assert torch.equal(clip.future, rollout.decisions.frames) and torch.equal(
        clip.future_mask, rollout.decisions.verifiable
    )


@pytest.mark.parametrize(
    "change", [{"episodes": 0}, {"imagine_steps": 0}, {"choose": 0}, {"every": -1}, {"during": 0}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"eval\."):
        EvalConfig(**change).validate()
