"""Supervised fine-tuning: it learns, resumes bitwise, and keeps the average."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.evaluate import copy_ratio
from wamrl.models.joint import JointActorConfig, JointConfig
from wamrl.runtime import checkpoint
from wamrl.sft import SFT, SFTConfig, joint_loss, learning_rate

CFG = SFTConfig(steps=8, batch=8, warmup=2, ema=0.9)
SEEDS = torch.arange(24).view(3, 8)


MODELS = {
    "features at pure noise": tiny.MODEL,
    "half denoised": replace(tiny.MODEL, world=replace(tiny.MODEL.world, feature_sigma=0.5)),
    "one transformer": replace(
        tiny.MODEL,
        world=JointConfig(width=32, depth=2, heads=2, patch=8),
        actor=JointActorConfig(hidden=32),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name, tmp_path):
    model = MODELS[name]
    straight, sample = SFT(tiny.lively(model=model), CFG, seed=3), tiny.demos().sample
    for _ in range(4):
        straight.step(sample)
    checkpoint.save(tmp_path / "sft-resume", straight.state_dict())
    whole = [straight.step(sample) for _ in range(4)]
    torch.randn(5)
    resumed = SFT(tiny.lively(seed=1, model=model), CFG, seed=0)
    resumed.load_state_dict(checkpoint.load(tmp_path / "sft-resume"))
    assert resumed.done == 4
    assert [resumed.step(sample) for _ in range(4)] == whole
    assert tiny.difference(straight.state_dict(), resumed.state_dict()) is None


def test_both_losses_fall_and_both_halves_learn():
    wam = tiny.fresh()
    before, sft = tiny.snapshot(wam), SFT(wam, replace(CFG, steps=60, batch=16, lr=3e-3), seed=0)
    clip = tiny.demos().sample(16, torch.Generator().manual_seed(0))
    copied = copy_ratio(wam, clip, 1).mean()  # the video loss weighs by what is predicted to move
    # one batch, learned by heart
    metrics = [sft.step(lambda n, g, part: clip[part]) for _ in range(60)]
    first, last = (sum(m["sft/action_loss"] for m in part) for part in (metrics[:8], metrics[-8:]))
    assert last < 0.8 * first
    assert copied > 0.99 and copy_ratio(wam, clip, 1).mean() < 0.8
    moved = tiny.changed(wam, before)
    assert any(k.startswith("world.") for k in moved) and any(k.startswith("actor.") for k in moved)


def test_the_action_loss_teaches_the_world_model_too():
    """Joint training: the actor's gradient reaches the features."""
    wam = tiny.lively()
    clip = tiny.demos().sample(8, torch.Generator().manual_seed(0))
    joint_loss(wam, clip, SEEDS, 8, 8.0)[1].backward()
    assert wam.world.blocks[0].mlp[0].weight.grad.abs().sum() > 0


def test_weights_of_clips_count_relatively():
    wam, clip = tiny.lively(), tiny.demos().sample(8, torch.Generator().manual_seed(0))

    def loss(weight):
        with torch.no_grad():
            return joint_loss(wam, replace(clip, weight=weight), SEEDS, 8, weight.sum().item())[
                1
            ].item()

    one = torch.ones(8)
    parts = [loss(torch.eye(8)[i]) for i in range(8)]
    assert (
        loss(one)
        == pytest.approx(loss(7 * one), rel=1e-5)
        == pytest.approx(sum(parts) / 8, rel=1e-4)
    )
    assert max(parts) > 1.1 * min(parts) and loss(0 * one) == 0


def test_gradients_of_small_passes_add_up_to_those_of_the_batch():
    steps = {}
    for microbatch in (0, 3):
        sft = SFT(tiny.lively(), replace(CFG, batch=8, microbatch=microbatch), seed=0)
        metrics = sft.step(tiny.demos().sample)
        steps[microbatch] = [p.grad.clone() for p in sft.wam.parameters()], metrics
    assert max((a - b).abs().max() for a, b in zip(steps[0][0], steps[3][0], strict=True)) < 1e-6
    assert steps[0][1] == pytest.approx(steps[3][1], rel=1e-5)


def test_the_average_starts_near_the_weights_and_lags_later():
    sft = SFT(tiny.fresh(), replace(CFG, lr=1e-2), seed=0)
    for _ in range(3):
        sft.step(tiny.demos().sample)
    p, a = sft.wam.actor.position, sft.average.actor.position
    assert not torch.equal(p, a) and not a.requires_grad
    sft.cfg = replace(CFG, ema=0.0)
    sft.step(tiny.demos().sample)
    assert torch.equal(sft.wam.actor.position, sft.average.actor.position)


def test_the_learning_rate_warms_up_and_decays_to_a_tenth():
    cfg = SFTConfig(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(s, cfg) for s in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_a_loss_that_is_not_finite_is_refused_in_words():
    sft = SFT(tiny.fresh(), replace(CFG, warmup=1), seed=0)
    sft.cfg = replace(sft.cfg, lr=1e30)  # beyond its range, so that it diverges at once
    with pytest.raises(
        FloatingPointError, match="sft: step .*: the loss is not finite; lower sft.lr"
    ):
        for _ in range(8):
            sft.step(tiny.demos().sample)
    assert math.isfinite(sft.done)


@pytest.mark.parametrize("change", [{"steps": 0}, {"ema": 1.0}, {"lr": 0.0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"sft\.\w+=.* is not possible"):
        SFT(tiny.fresh(), SFTConfig(**change), seed=0)
