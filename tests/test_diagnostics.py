"""Diagnostics of the online loop: which chunks, drift, what is compared, and the alarm."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from wamrl.diagnostics import DiagnosticsConfig, alarm_line, spread, trends
from wamrl.online.state import TrainingState
from wamrl.rewards.episode_scores import early, episode_mean, motion_energy, sharpness
from wamrl.rewards.pixels import PixelConfig
from wamrl.rollout.samples import imagine
from wamrl.rollout.types import Rollout
from wamrl.stats.auc import auc
from wamrl.train import iterate


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    with tiny.CONFIG.build_pool() as pool:
        return tiny.explore(tiny.lively(), pool, 24)


def build(wam=None, **changes):
    wam = tiny.lively() if wam is None else wam
    variance = torch.full((len(wam.spec.taps), wam.world.feature_dim), 2.0)
    return DiagnosticsConfig(**changes).build(PixelConfig().build(), 1, wam.eval(), variance)


def test_imagine_replays_what_the_chunks_saw(rollout):
    wam, chunks = tiny.lively(), rollout.decisions
    whole = imagine(wam, chunks, 2)
    part = wam.imagine(chunks[slice(3, 5)].obs, chunks.plan.seed[3:5], 2)
    assert whole.shape == chunks.frames.shape and torch.allclose(whole[3:5], part, atol=1e-5)
    assert torch.allclose(whole, imagine(wam, chunks, 2, batch=7), atol=1e-5)


def test_what_acted_imagines_from_its_cached_features(rollout, monkeypatch):
    """Without another pass, where they were kept exactly; else, and for other models, with one."""
    wam, chunks = tiny.lively(), rollout.decisions
    wanted, calls, encode = imagine(wam, chunks, 1), [], wam.encode
    monkeypatch.setattr(wam, "encode", lambda obs: calls.append(len(obs)) or encode(obs))
    assert torch.allclose(imagine(wam, chunks, 1, acted=True), wanted, atol=1e-5) and not calls
    for other, steps in ((chunks, 2), (replace(chunks, plan=chunks.plan.drop_features()), 1)):
        frames = imagine(wam, other, steps, acted=True)
        assert calls and torch.allclose(frames, imagine(wam, chunks, steps), atol=1e-5)
        calls.clear()
    rounded = replace(chunks, plan=replace(chunks.plan, features=chunks.plan.features.bfloat16()))
    assert torch.allclose(imagine(wam, rounded, 1, acted=True), wanted, atol=1e-5) and calls


def test_the_numbers_are_those_of_the_whole_rollout_if_all_chunks_are_looked_at(rollout):
    wam, chunks = tiny.lively(), rollout.decisions
    metrics = build(chunks=10_000)(rollout, wam, wam, None)
    u, w, w0 = (
        imagine(wam, chunks, 1),
        chunks.frames.float() / 255,
        chunks.obs.frames[:, -1].float() / 255,
    )
    real = chunks.verifiable
    assert metrics["diag/motion/executed"] == pytest.approx(
        motion_energy(w, w0)[real].mean().item()
    )
    assert metrics["diag/sharpness/imagined"] == pytest.approx(sharpness(u)[real].mean().item())
    error = ((u - w) ** 2).mean((2, 3, 4, 5)) * real
    copied = ((w0[:, None] - w) ** 2).mean((2, 3, 4, 5)) * real
    assert metrics["world/copy_ratio/8"] == pytest.approx(
        (error[:, 1].sum() / copied[:, 1].sum()).item(), rel=1e-4
    )
    gain = torch.where(real.any(1), (copied - error).sum(1) / real.sum(1), torch.nan)
    score = episode_mean(
        gain, chunks.episode, torch.ones(len(chunks), dtype=torch.bool), len(rollout.success)
    ).numpy()
    expected = auc(score, rollout.success.numpy(), [s.index for s in rollout.starts])
    assert metrics["diag/auc/gain"] == pytest.approx(expected.value)
    assert (metrics["diag/auc_low/gain"], metrics["diag/auc_high/gain"]) == pytest.approx(
        (expected.low, expected.high)
    )
    won = score[rollout.success.numpy()]
    assert metrics["diag/mean_success/gain"] == pytest.approx(np.nanmean(won), rel=1e-4)
    first = episode_mean(
        gain, chunks.episode, early(chunks.episode, rollout.success), len(score)
    ).numpy()
    assert metrics["diag/auc_early/gain"] == pytest.approx(
        auc(first, rollout.success.numpy()).value
    )


def test_an_offset_that_no_chunk_reaches_has_no_copy_ratio(rollout):
    verifiable = rollout.decisions.verifiable.clone()
    verifiable[:, 1] = False
    short = replace(rollout, decisions=replace(rollout.decisions, verifiable=verifiable))
    metrics = build(chunks=20)(short, tiny.lively(), tiny.lively(), None)
    assert np.isnan(metrics["world/copy_ratio/8"]) and metrics["world/copy_ratio/4"] > 0


def test_given_imaginations_are_used_and_unverifiable_frames_have_no_influence(rollout):
    wam, diagnostics = tiny.lively(), build(chunks=20)
    plain = diagnostics(rollout, wam, wam, None)
    given = diagnostics(rollout, wam, wam, imagine(wam, rollout.decisions, 1))
    assert given == pytest.approx(plain, rel=1e-3, nan_ok=True)
    perfect = diagnostics(rollout, wam, wam, rollout.decisions.frames.float() / 255)
    assert perfect["world/copy_ratio/8"] == 0 and perfect["diag/mean/reconstruction"] == 0
    frames = rollout.decisions.frames.clone()
    assert not rollout.decisions.verifiable.all()
    frames[~rollout.decisions.verifiable] = 255 - frames[~rollout.decisions.verifiable]
    other = diagnostics(
        replace(rollout, decisions=replace(rollout.decisions, frames=frames)), wam, wam, None
    )
    assert repr(other) == repr(plain)


def test_drift_is_zero_for_the_frozen_model_and_scales_with_the_variance(rollout):
    same, moved = tiny.lively(), tiny.lively(seed=3)
    zero = build(same)(rollout, same, same, None)
    assert all(zero[f"diag/drift/{tap}"] < 1e-9 for tap in same.spec.taps)
    metrics, chunks = build(moved, chunks=10_000)(rollout, same, same, None), rollout.decisions
    old = moved.features(moved.encode(chunks.obs), chunks.plan.seed)
    expected = ((chunks.plan.features - old) ** 2 / 2.0).mean((0, 2, 3))
    assert [metrics[f"diag/drift/{tap}"] for tap in same.spec.taps] == pytest.approx(
        expected.tolist(), rel=1e-4
    )


def test_drift_grows_in_the_real_loop_from_zero():
    cfg = tiny.train_config(world=replace(tiny.CONFIG.train.world, world_lr=1e-3))
    with cfg.build_pool() as pool:
        run = TrainingState(cfg, tiny.lively(), tiny.demos(), 40)
        metrics = [iterate(run, pool)[0] for _ in range(3)]
    for tap in run.wam.spec.taps:
        drift = [m[f"diag/drift/{tap}"] for m in metrics]
        assert drift[0] < 1e-9 < 1e-6 < drift[-1]


def test_chunks_are_spread_evenly_over_episodes():
    count = torch.tensor([7, 7, 1, 7, 3])
    episode = torch.arange(5).repeat_interleave(count)
    for n, share in (
        (5, [1, 1, 1, 1, 1]),
        (9, [2, 2, 1, 2, 2]),
        (13, [3, 3, 1, 3, 3]),
        (99, count.tolist()),
    ):
        rows = spread(episode, n)
        assert torch.bincount(episode[rows], minlength=5).tolist() == share
        assert rows.tolist() == sorted(set(rows.tolist()))
    places = (spread(torch.arange(60).repeat_interleave(7), 60) % 7).bincount(minlength=7)
    assert (places > 2).all()  # not always the same place of an episode


# --- the alarm


def history(reconstruction, success, trials=48.0) -> list[dict[str, float]]:
    return [
        {"reconstruction": r, "success": 0.5, "trials": 64.0, "fresh": s, "fresh_trials": trials}
        for r, s in zip(reconstruction, success, strict=True)
    ]


def test_trends_take_all_episodes_where_an_iteration_had_no_fresh_state():
    falling = history([1, 2, 3, 4.1], [0.9, 0.7, 0.5, 0.3])
    assert trends(falling)[1] < 1e-6
    falling[1]["fresh_trials"] = 0.0
    assert trends(falling)[1] == pytest.approx(0.5)
    assert trends(falling[:3]) == (1.0, 1.0)


def watched(
    reconstruction, success, group: int = 4, fresh: float = 192.0
) -> list[dict[str, float]]:
    diagnostics, out = build(), []
    for r, s in zip(reconstruction, success, strict=True):
        metrics = {"diag/mean/reconstruction": r, "rollout/success": s, "rollout/episodes": 256.0}
        metrics |= (
            {"rollout/success_fresh": s, "rollout/fresh": fresh}
            if fresh
            else {"rollout/fresh": 0.0}
        )
        out.append(diagnostics.watch(metrics, group))
    return out


def test_the_alarm_fires_on_a_gamed_reward():
    rng = np.random.default_rng(0)
    t = np.arange(10)
    seen = watched(-0.02 + 0.001 * t + 0.0005 * rng.normal(size=10), 0.7 - 0.05 * t)
    assert [m["diag/alarm"] for m in seen[:3]] == [0, 0, 0] and seen[-1]["diag/alarm"] == 1
    assert "rises" in alarm_line(seen[-1]) and alarm_line(seen[0]) == alarm_line({}) == ""


@pytest.mark.parametrize(
    ("slope", "fall"),
    [(0.001, 0.0), (-0.001, 0.05), (0.001, -0.05)],
    ids=["reward only", "both fall", "both rise"],
)
def test_the_alarm_keeps_quiet_where_one_half_is_missing(slope, fall):
    rng, t = np.random.default_rng(0), np.arange(10)
    noise = 0.0005 * rng.normal(size=10)
    assert not any(
        m["diag/alarm"] for m in watched(-0.02 + slope * t + noise, 0.6 - fall * t + 0.0 * noise)
    )


def test_the_alarm_hardly_ever_fires_on_noise():
    rng, fired = np.random.default_rng(1), 0
    for _ in range(50):
        success = rng.binomial(48, 0.5, 10) / 48  # 48 states whose four episodes end alike
        fired += sum(m["diag/alarm"] for m in watched(rng.normal(size=10), success))
    assert fired / 500 < 0.02


@pytest.mark.parametrize("fresh", [192.0, 0.0])
def test_episodes_of_one_state_count_once(fresh):
    success = [0.6, 0.57, 0.54, 0.51, 0.48]
    alone, grouped = (
        watched(range(5), success, group, fresh)[-1]["diag/p_fall"] for group in (1, 16)
    )
    assert alone < 0.05 < grouped


def test_the_history_survives_a_checkpoint_and_is_bounded(rollout, tmp_path):
    from wamrl.runtime import checkpoint

    a, b = build(window=4), build(window=4)
    a(rollout, tiny.lively(), tiny.lively(), None)
    for i in range(6):
        metrics = {
            "diag/mean/reconstruction": float(i),
            "rollout/success": 0.5 - i / 20,
            "rollout/episodes": 64.0,
        }
        a.watch(metrics | {"rollout/fresh": 0.0}, 4)
    checkpoint.save(tmp_path / "state", a.state_dict())
    b.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert len(b.history) == 4 and tiny.difference(a.state_dict(), b.state_dict()) is None
    more = {
        "diag/mean/reconstruction": 9.0,
        "rollout/success": 0.1,
        "rollout/episodes": 64.0,
        "rollout/fresh": 0.0,
    }
    assert a.watch(more, 4) == b.watch(more, 4)


@pytest.mark.parametrize("change", [{"chunks": 0}, {"window": 3}, {"level": 0.0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"train\.diagnostics\.\w+=.* is not possible"):
        tiny.train_config(diagnostics=DiagnosticsConfig(**change)).validate()
