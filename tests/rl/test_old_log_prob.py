"""What ratios are taken against: log-probabilities of the rollout, or of the update's batches."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.rl.test_log_ratio import sampled
from tests.support import tiny
from wamrl.models.check import probe
from wamrl.models.rounding import coarse_unit
from wamrl.models.wam import WAM
from wamrl.rl import policy
from wamrl.rl.batch import PolicyBatch
from wamrl.rl.grpo import GRPOConfig
from wamrl.rl.policy import ClippedPolicy
from wamrl.rl.ppo import PPOConfig

FLOW = replace(tiny.CONFIG.flow, noisy="all")
COARSE = replace(tiny.MODEL, compute="bfloat16", feature_dtype="bfloat16")


def clipped(wam: WAM, **changes) -> ClippedPolicy:
    options = {"batch": 8, "epochs": 1, "warmup": 0} | changes
    return ClippedPolicy(replace(tiny.CONFIG.train.learner, **options), wam)


def forgotten(batch: PolicyBatch) -> PolicyBatch:
    """Whose features were not kept."""
    return replace(batch, plan=batch.plan.drop_features())


def drifted(batch: PolicyBatch, nats: float) -> PolicyBatch:
    """As if the rollout's kernels had given this much more for each entry."""
    return replace(batch, plan=replace(batch.plan, chain_log_prob=batch.plan.chain_log_prob + nats))


def judged(wam: WAM, n: int = 24) -> PolicyBatch:
    """Sampled chunks, every other one of them good."""
    batch = sampled(wam, FLOW, n=n)
    return replace(batch, advantage=torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0))


def learned(wam: WAM, batch: PolicyBatch, monkeypatch, **changes) -> tuple[list, dict]:
    """The log ratios of each minibatch of an update, and its metrics."""
    seen = []

    def loss(log_ratio, advantage, cfg):
        seen.append(log_ratio.detach().clone())
        return plain(log_ratio, advantage, cfg)

    plain = policy.policy_loss
    monkeypatch.setattr(policy, "policy_loss", loss)
    generator = torch.Generator().manual_seed(0)
    metrics = clipped(wam, **changes).improve(wam, batch, FLOW, generator)
    monkeypatch.undo()
    return seen, metrics


@pytest.mark.parametrize("transitions", [0, 1, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_the_first_step_has_ratios_of_exactly_one(transitions, kept, monkeypatch):
    wam = tiny.lively()
    batch = drifted(judged(wam), 1e-2)
    batch = batch if kept else forgotten(batch)
    options = {"transitions": transitions, "epochs": 2, "lr": 1e-6}
    here, _ = learned(copy.deepcopy(wam), batch, monkeypatch, old_log_prob="recomputed", **options)
    assert here[0].shape == (8, transitions or 3) and (here[0] == 0).all()
    assert all((part != 0).any() for part in here[1:])
    # of every transition, also those that the first epoch did not look at
    assert max(part.abs().max() for part in here) < 0.05
    there, _ = learned(copy.deepcopy(wam), batch, monkeypatch, old_log_prob="rollout", **options)
    assert (there[0] < -0.05).all()
    assert (batch.plan.chain_log_prob == drifted(batch, 0.0).plan.chain_log_prob).all()


def test_the_drift_is_what_the_formula_says(monkeypatch):
    wam = tiny.lively()
    batch = judged(wam)
    batch.mask[::2, 3:] = False
    moved = -0.01 * batch.mask.sum(1).double() * 2  # dimensions of an action
    _, metrics = learned(wam, drifted(batch, 0.01), monkeypatch, old_log_prob="recomputed")
    expected = (moved.exp() - 1 - moved).mean().item()
    assert metrics["actor/drift"] == pytest.approx(expected, rel=1e-3)


def test_nothing_is_recomputed_unless_it_drifts():
    """By itself only where a network in bfloat16 reads again."""
    fine = tiny.lively()
    coarse = tiny.lively(model=COARSE)
    batch = sampled(fine, FLOW, n=3)
    auto = PPOConfig()
    assert not auto.recomputes(fine, batch.plan.has_features)
    assert not auto.recomputes(fine, False)
    assert not auto.recomputes(coarse, batch.plan.has_features)
    assert auto.recomputes(coarse, False)
    assert not PPOConfig(old_log_prob="rollout").recomputes(coarse, False)
    assert GRPOConfig(old_log_prob="recomputed").recomputes(fine, batch.plan.has_features)


def test_unless_asked_an_update_is_what_it_was(monkeypatch):
    wam = tiny.lively()
    batch = judged(wam)
    auto = copy.deepcopy(wam)
    rollout = copy.deepcopy(wam)
    _, metrics = learned(auto, batch, monkeypatch)
    learned(rollout, batch, monkeypatch, old_log_prob="rollout")
    assert "actor/drift" not in metrics
    assert tiny.difference(auto.state_dict(), rollout.state_dict()) is None


def deep(sigma: float = 1.0) -> WAM:
    """A network in bfloat16."""
    world = replace(tiny.MODEL.world, width=96, depth=6, taps=(1, 6), feature_sigma=sigma)
    return tiny.lively(model=replace(COARSE, world=world)).eval()


def unsteady(louder: float) -> WAM:
    """Other numbers of rows, other rounding, as kernels of a GPU have it; and an actor that listens
    to it more.
    """
    wam = deep()
    for weight in wam.actor.parameters():
        weight.data *= louder
    plain = wam.features

    def features(context, seeds):
        found = plain(context, seeds)
        size = found.square().mean(-1, keepdim=True).sqrt()
        draw = torch.Generator().manual_seed(len(seeds))
        noise = torch.randn(found.shape, generator=draw)
        return (found + 2.0**-8 * size * noise).bfloat16().float()

    wam.features = features
    return wam


@pytest.mark.parametrize("louder", [1.0, 4.0])
def test_features_of_a_network_in_bfloat16_may_be_rounded_otherwise(louder):
    wam = unsteady(louder)
    batch = sampled(wam, FLOW, n=16)
    assert 1e-3 < clipped(wam).first_ratio(wam, forgotten(batch), FLOW)
    if louder > 1:
        with pytest.raises(RuntimeError, match="changed between rollout and update"):
            clipped(wam, old_log_prob="rollout").first_ratio(wam, forgotten(batch), FLOW)


def test_what_rounding_explains_is_measured_on_the_actor_that_reads():
    units = []
    for louder in (1.0, 4.0):
        wam = unsteady(louder)
        batch = sampled(wam, FLOW, n=16)
        plan = wam.with_features(batch.plan, batch.obs)
        with torch.no_grad():
            new = wam.log_prob(plan, FLOW)
        units.append(coarse_unit(wam, plan, new, batch.mask, FLOW))
    assert 2.0**-18 < units[0] < 2.0**-12 and units[1] > 4 * units[0]


def test_stale_features_are_refused_where_they_are_read_again_in_bfloat16():
    wam = deep(sigma=0.5)
    batch = forgotten(sampled(wam, FLOW, n=16))
    other = replace(batch, plan=replace(batch.plan, seed=batch.plan.seed + 1))
    moved = copy.deepcopy(wam)
    optimizer = torch.optim.AdamW(moved.world.parameters(), 1e-3)
    clip = probe(moved, 99)
    moved.video_loss(clip, moved.encode(clip.obs), torch.arange(3)).sum().backward()
    optimizer.step()
    acted = copy.deepcopy(wam)
    acted.actor.head.bias.data += 1e-2
    assert clipped(wam).cfg.recomputes(wam, batch.plan.has_features)
    clipped(wam).first_ratio(wam, batch, FLOW)
    for changed, rows in ((wam, other), (moved, batch), (acted, batch)):
        with pytest.raises(RuntimeError, match="changed between rollout and update"):
            clipped(changed).first_ratio(changed, rows, FLOW)
