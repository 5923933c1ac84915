"""What an episode has seen and done goes with the episode, and is there again for the update."""

from dataclasses import replace

import pytest
import torch

from tests.support import remembering, tiny
from wamrl.models.rounding import worst_drift
from wamrl.rollout.collect import collect
from wamrl.rollout.samples import imagine, success_clips


@pytest.fixture(scope="module", params=["MODEL", "SHORT"])
def model(request):
    """One that remembers whole episodes, and one that forgets their beginning."""
    return getattr(remembering, request.param)


@pytest.fixture(scope="module")
def wam(model):
    return tiny.lively(model=model).eval()


@pytest.fixture(scope="module")
def rollout(wam):
    with tiny.build_pool() as pool:
        return tiny.explore(wam, pool, 20)


def test_the_past_of_a_decision_is_what_the_episode_has_seen_and_done(wam, rollout):
    """Against a plain loop; more episodes than slots."""
    chunks = rollout.decisions
    places = wam.spec.past
    most = 0
    for e in range(len(rollout.starts)):
        rows = chunks[chunks.episode == e]
        for now in range(len(rows)):
            before = range(max(0, now - places), now)
            most = max(most, now)
            empty = places - len(before)
            past = rows.obs.past
            assert past.executed[now].tolist() == [0] * empty + [8] * len(before)
            assert not past.frames[now, :empty].any() and not past.proprio[now, :empty].any()
            for place, earlier in enumerate(before, empty):
                assert torch.equal(past.frames[now, place], rows.obs.frames[earlier])
                assert torch.equal(past.proprio[now, place], rows.obs.proprio[earlier])
                done = rows.plan.actions[earlier].clamp(-1, 1)
                assert torch.equal(past.actions[now, place], done)
    assert most == 4


def test_it_belongs_to_the_episode_whatever_slot_plays_it(wam, rollout):
    with tiny.build_pool(n_envs=3) as pool:
        narrow = tiny.explore(wam, pool, 20)
    a, b = rollout.decisions, narrow.decisions
    assert torch.equal(a.step, b.step) and torch.equal(a.episode, b.episode)
    assert (a.plan.actions - b.plan.actions).abs().max() < 1e-5
    assert (a.plan.features - b.plan.features).abs().max() < 1e-4


def test_features_computed_again_are_those_that_acted(wam, rollout):
    """The state that acted was kept and observed into; this one is recalled from the past."""
    chunks = rollout.decisions
    again = wam.with_features(chunks.plan.drop_features(), chunks.obs)
    assert torch.allclose(again.features, chunks.plan.features, atol=1e-5)
    _, excess = worst_drift(wam, chunks.plan, again, tiny.CONFIG.flow)
    assert excess <= 0
    first = chunks.obs.past.executed[:, -1] == 0
    blank = replace(chunks.obs, past=chunks.obs.past.emptied(wam.spec.past))
    forgetful = wam.with_features(chunks.plan.drop_features(), blank)
    moved = (forgetful.features - again.features).abs().amax((1, 2, 3))
    assert (moved[first] == 0).all() and (moved[~first] > 1e-3).all()


def test_the_state_is_kept_while_all_is_in_the_window(wam, rollout, monkeypatch):
    """Then no pass over the past is needed to act."""
    calls = []
    plain = wam.recall
    monkeypatch.setattr(wam, "recall", lambda *args: calls.append(0) or plain(*args))
    with tiny.build_pool() as pool:
        tiny.explore(wam, pool, 8)
    assert bool(calls) == (wam.spec.past < 4)


def test_imagination_and_clips_have_the_same_past(wam, rollout):
    chunks = rollout.decisions
    frames = imagine(wam, chunks, 2, batch=7)
    blank = replace(chunks.obs, past=chunks.obs.past.emptied(wam.spec.past))
    other = imagine(wam, replace(chunks, obs=blank), 2, batch=7)
    later = chunks.step > 0
    assert torch.equal(frames[~later], other[~later])
    assert (frames - other)[later].abs().amax() > 1e-3
    clip = success_clips(rollout, torch.ones(20))
    won = chunks[rollout.success[chunks.episode]]
    assert len(won) and torch.equal(clip.obs.past.frames, won.obs.past.frames)


def test_a_model_that_does_not_remember_pays_nothing():
    with tiny.build_pool() as pool:
        rollout = collect(
            tiny.lively(), pool, tiny.starts(3), tiny.CONFIG.flow, seed=0, sampler="ode"
        )
    assert rollout.decisions.obs.past is None
    assert success_clips(rollout, torch.ones(3)).past is None
