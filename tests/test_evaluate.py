"""Evaluation: the held-out states, the same for every model, and the copy ratio."""

import math
from dataclasses import replace

import pytest
import torch

from tests import tiny
from wamrl.evaluate import EvalConfig, copy_ratio, evaluate, rollout_clip
from wamrl.types import SPLITS, Start


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.pool().build() as pool:
        yield pool


def test_the_same_held_out_states_for_every_model(pool):
    cfg = EvalConfig(episodes=10)
    a, again = (evaluate(tiny.lively(), pool, cfg, tiny.CONFIG.flow, seed=0) for _ in range(2))
    b = evaluate(tiny.lively(seed=1), pool, cfg, tiny.CONFIG.flow, seed=0)
    assert a.starts == b.starts == [Start(split="eval", index=i) for i in range(10)]
    assert torch.equal(a.chunks.plan.actions, again.chunks.plan.actions)
    first = [r.chunks[r.chunks.step == 0] for r in (a, b)]
    assert torch.equal(first[0].obs.frames, first[1].obs.frames)
    assert torch.equal(first[0].plan.seed, first[1].plan.seed)
    assert not torch.equal(first[0].plan.actions, first[1].plan.actions)
    assert a.chunks.plan.chain_x.shape[1] == 0  # noise-free


def test_the_exploration_noise_has_no_influence(pool):
    cfg = EvalConfig(episodes=3)
    flows = [replace(tiny.CONFIG.flow, noise=noise) for noise in (0.1, 0.9)]
    a, b = (evaluate(tiny.lively(), pool, cfg, flow, seed=0) for flow in flows)
    assert torch.equal(a.chunks.plan.actions, b.chunks.plan.actions)


def test_splits_are_disjoint():
    ranges = [(Start(split=s, index=0).seed, Start(split=s, index=99_999_999).seed) for s in SPLITS]
    assert all(a[1] < b[0] for a, b in zip(ranges, ranges[1:], strict=False))
    with pytest.raises(ValueError, match="no such start"):
        _ = Start(split="eval", index=100_000_000).seed


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
    assert copy_ratio(wam, clip, 2, batch=64).tolist() == pytest.approx(reference_ratio(wam, clip, 2), rel=1e-4)
    assert copy_ratio(wam, clip, 2, batch=7).tolist() == pytest.approx(copy_ratio(wam, clip, 2).tolist(), rel=1e-4)


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
    rollout = evaluate(tiny.lively(), pool, EvalConfig(episodes=6), tiny.CONFIG.flow, seed=0)
    clip, few = rollout_clip(rollout), rollout_clip(rollout, limit=5)
    assert len(clip) == len(rollout.chunks) and len(few) == 5
    assert torch.equal(clip.future, rollout.chunks.frames) and torch.equal(clip.future_mask, rollout.chunks.verifiable)


@pytest.mark.parametrize("change", [{"episodes": 0}, {"imagine_steps": 0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="eval:"):
        EvalConfig(**change).validate()
