"""The clipped policy update: against a loop in plain Python, on fixed batches, and its guards."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.models.check import probe
from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.rl.advantage import scaled
from wamrl.rl.batch import PolicyBatch, minibatches
from wamrl.rl.policy import ClippedPolicy, chunk_log_prob, policy_loss
from wamrl.rl.ppo import PPOConfig


def reference_loss(log_ratio, advantage, cfg):
    total, n = 0.0, 0
    for row, a in zip(log_ratio.tolist(), advantage.tolist(), strict=True):
        for x in row:
            r = math.exp(x)
            clipped = min(max(r, 1 - cfg.clip), 1 + cfg.clip_high)
            objective = min(r * a, clipped * a)
            if a < 0:
                objective = max(objective, cfg.dual_clip * a)
            total, n = total - objective, n + 1
    return total / n


def test_the_loss_is_the_dual_clipped_surrogate():
    g = torch.Generator().manual_seed(0)
    cfg = PPOConfig(clip=0.1, clip_high=0.4, dual_clip=2.0)
    log_ratio, advantage = torch.randn(50, 3, generator=g), torch.randn(50, generator=g)
    loss = policy_loss(log_ratio, advantage, cfg).mean().item()
    assert loss == pytest.approx(reference_loss(log_ratio, advantage, cfg))


@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [
        # good: may grow to 1.4
        (1.0, 1.0, True),
        (1.35, 1.0, True),
        (1.45, 1.0, False),
        (0.5, 1.0, True),
        (1.0, -1.0, True),
        (0.95, -1.0, True),
        (0.85, -1.0, False),
        (1.9, -1.0, True),
        (2.1, -1.0, False),
    ],
)
def test_where_the_gradient_flows(ratio, advantage, flows):
    cfg = PPOConfig(clip=0.1, clip_high=0.4, dual_clip=2.0)
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    policy_loss(log_ratio, torch.tensor([advantage]), cfg).backward()
    assert (log_ratio.grad.item() != 0) == flows
    if flows:
        assert math.copysign(1, log_ratio.grad.item()) == -advantage


def test_only_executed_actions_count():
    elementwise = torch.randn(3, 2, 8, 4)
    mask = torch.arange(8) < torch.tensor([8, 3, 0])[:, None]
    out = chunk_log_prob(elementwise, mask)
    assert out.shape == (3, 2) and (out[2] == 0).all()
    assert torch.allclose(out[1], elementwise[1, :, :3].sum((-1, -2)))
    other = elementwise.clone()
    other[1, :, 3:] = 1e6
    assert torch.equal(chunk_log_prob(other, mask)[1], out[1])


def synthetic(
    wam: WAM, n: int = 24, seed: int = 0, noisy: str = "one"
) -> tuple[PolicyBatch, FlowConfig]:
    """Chunks of a random observation each; half of them good, half bad."""
    flow = replace(tiny.CONFIG.flow, noisy=noisy)
    obs = type(probe(wam).obs).cat([probe(wam, seed + i).obs for i in range(n // 3)])
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    plan = wam.eval().act(obs, torch.arange(n), flow, generators, sampler="explore")
    mask = torch.ones(n, 8, dtype=torch.bool)
    mask[::4, 5:] = False
    advantage = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    return PolicyBatch(obs=obs, plan=plan, mask=mask, advantage=advantage), flow


def policy(wam: WAM, **changes) -> ClippedPolicy:
    return ClippedPolicy(replace(tiny.CONFIG.train.learner, **changes), wam)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def checked(policy: ClippedPolicy, wam: WAM, batch: PolicyBatch, flow: FlowConfig) -> dict:
    """The guard, then the epochs, as learners call them."""
    metrics = {"actor/first_log_ratio": policy.first_ratio(wam, batch, flow)}
    return metrics | policy.improve(wam, batch, flow, seeded())


@pytest.mark.parametrize("noisy", ["one", "all", "all_but_last"])
def test_good_chunks_become_likelier_and_bad_ones_less(noisy):
    wam = tiny.lively()
    batch, flow = synthetic(wam, noisy=noisy)
    update = policy(wam, lr=1e-3, epochs=5, batch=8, target_kl=10.0, warmup=0)
    with torch.no_grad():
        before = chunk_log_prob(wam.log_prob(batch.plan, flow), batch.mask)
    metrics = checked(update, wam, batch, flow)
    with torch.no_grad():
        gain = (chunk_log_prob(wam.log_prob(batch.plan, flow), batch.mask) - before).mean(1)
    good = batch.advantage > 0
    assert gain[good].mean() > 0.005 > -0.005 > gain[~good].mean()
    assert (
        metrics["actor/first_log_ratio"] < 1e-4
        and metrics["actor/kl"] > 0
        and metrics["actor/grad_norm"] > 0
    )


def test_the_update_refuses_a_changed_actor_or_changed_features():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    assert policy(wam).first_ratio(wam, batch, flow) < 1e-4
    features = batch.plan.features.flip(-1)
    other = replace(batch, plan=replace(batch.plan, features=features))
    with pytest.raises(RuntimeError, match="changed between rollout and update"):
        policy(wam).first_ratio(wam, other, flow)
    # another noise level scores otherwise
    with pytest.raises(RuntimeError, match="before the first update"):
        policy(wam).first_ratio(wam, batch, replace(flow, noise=0.4))
    wam.actor.head.bias.data += 1e-3
    before = tiny.snapshot(wam)
    with pytest.raises(RuntimeError, match="must be 0"):
        policy(wam).first_ratio(wam, batch, flow)
    assert not tiny.changed(wam, before)


def test_a_nan_in_the_chain_is_refused_before_any_step():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    batch.plan.chain_log_prob[0, 0, 0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="before the first update"):
        policy(wam).first_ratio(wam, batch, flow)


def test_small_advantages_do_not_drive_full_updates():
    noise = torch.randn(1000, generator=seeded())
    assert scaled(1e-3 * noise, 0.1, centre=True).std() == pytest.approx(1e-2, rel=0.05)
    assert scaled(3 * noise, 0.1, centre=True).std() == pytest.approx(1, rel=0.05)
    assert scaled(noise + 5, 0.1, centre=True).mean().abs() < 1e-5
    assert scaled(noise + 5, 0.1, centre=False).mean() == pytest.approx(5, rel=0.1)


def test_minibatches_are_equal_and_hold_every_chunk_once():
    parts = minibatches(27, 8, seeded())
    assert [count for _, count in parts] == [9, 9, 9]
    assert torch.cat([rows for rows, _ in parts]).sort().values.tolist() == list(range(27))


def test_the_rate_warms_up_and_follows_the_measured_kl():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    update = policy(wam, lr=1e-3, warmup=4, epochs=1, batch=8, target_kl=10.0)
    update.improve(wam, batch, flow, seeded())
    assert update.optimizer.rate == pytest.approx(1e-3 * 3 / 4)
    assert update.rate == pytest.approx(1.25)  # far below the target
    update = policy(wam, lr=3e-3, warmup=0, epochs=3, batch=8, target_kl=1e-4)
    batch, flow = synthetic(wam)
    update.improve(wam, batch, flow, seeded())
    assert update.rate == pytest.approx(1 / 1.5)


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_features_that_were_not_kept_are_computed_again(sigma):
    """Under the same noise and without a gradient for the world model:
    the same update, to rounding.
    """
    world = replace(tiny.CONFIG.model.world, feature_sigma=sigma)
    updated = {}
    for kept in (True, False):
        wam = tiny.lively(model=replace(tiny.CONFIG.model, world=world))
        batch, flow = synthetic(wam)
        if not kept:
            batch = replace(batch, plan=batch.plan.drop_features())
            assert batch.plan.features.nbytes == 0
        metrics = checked(policy(wam), wam, batch, flow)
        assert metrics["actor/first_log_ratio"] < 1e-4 and all(
            p.grad is None for p in wam.world.parameters()
        )
        updated[kept] = [p.detach().clone() for p in wam.actor.parameters()]
    assert max((a - b).abs().max() for a, b in zip(*updated.values(), strict=True)) < 1e-5


def test_the_actor_reads_what_is_cached():
    """bfloat16 features are rounded before the actor reads them,
    so that the ratio is 1 before the first update.
    """
    wam = tiny.lively(model=replace(tiny.CONFIG.model, feature_dtype="bfloat16"))
    batch, flow = synthetic(wam)
    assert batch.plan.features.dtype == torch.bfloat16
    metrics = checked(policy(wam), wam, batch, flow)
    assert metrics["actor/first_log_ratio"] < 1e-4 and metrics["actor/grad_norm"] > 0


def test_the_world_model_gets_no_gradient_from_the_policy():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    before = tiny.snapshot(wam.world)
    checked(policy(wam), wam, batch, flow)
    assert not tiny.changed(wam.world, before)
    assert all(p.grad is None for p in wam.world.parameters())


def test_epochs_stop_where_the_policy_moved_far_enough():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    update = policy(wam, lr=3e-3, epochs=30, batch=8, target_kl=1e-3, warmup=0)
    metrics = update.improve(wam, batch, flow, seeded())
    assert metrics["actor/stopped_early"] == 1
    taken = next(iter(update.optimizer.moments.values()))["step"].item()
    assert 0 < taken < 30 * 3


def test_a_loss_that_is_not_finite_is_refused_in_words():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    batch.advantage[3] = torch.inf
    with pytest.raises(FloatingPointError, match="the loss is not finite; lower learner.lr"):
        policy(wam).improve(wam, batch, flow, seeded())


def test_a_single_chunk_can_be_updated_on():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    metrics = checked(policy(wam), wam, batch[slice(0, 1)], flow)
    assert all(math.isfinite(v) for v in metrics.values())


def test_optimisers_come_back_bitwise():
    wam = tiny.lively()
    batch, flow = synthetic(wam)
    update = policy(wam)
    update.improve(wam, batch, flow, seeded())
    other = policy(wam)
    other.load_state_dict(update.state_dict())
    assert tiny.difference(other.state_dict(), update.state_dict()) is None
    assert tiny.difference(policy(wam).state_dict(), update.state_dict()) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 0.0},
        {"clip_high": 0.1},
        {"epochs": 0},
        {"gamma": 1.1},
        {"lam": -0.1},
        {"batch": 0},
        {"target_kl": 0.0},
        {"min_scale": 0.0},
        {"warmup": -1},
        {"value_epochs": 0},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"learner[.:]"):
        PPOConfig(**change).validate()


def test_some_transitions_are_those_of_the_chain():
    wam = tiny.lively()
    batch, flow = synthetic(wam, noisy="all")
    update = policy(wam, transitions=1, epochs=2)
    part = batch.plan.some(update._transitions(batch, seeded()))
    assert part.chain_step.shape == (24, 1) and part.chain_step.unique().tolist() == [0, 1, 2]
    rows = torch.arange(24)
    chosen = part.chain_step[:, 0]  # with noise in all steps, transition j is step j
    assert torch.equal(part.chain_x[:, 0], batch.plan.chain_x[rows, chosen])
    with torch.no_grad():
        again = wam.log_prob(part, flow)[:, 0]
        whole = wam.log_prob(batch.plan, flow)[rows, chosen]
    assert torch.allclose(again, whole, atol=1e-4)
    assert update.improve(wam, batch, flow, seeded())["actor/kl"] > 0
