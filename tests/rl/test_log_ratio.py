"""The guard before the first update: rounding passes at any chunk size, what is stale does not."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support import tiny
from wamrl.models.check import check_wam, probe
from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import feature_unit, log_prob_change, rounding_tolerance
from wamrl.models.wam import WAM
from wamrl.rl.batch import PolicyBatch
from wamrl.rl.policy import ClippedPolicy

LONG = replace(tiny.MODEL, chunk=50)
FINE = FlowConfig(steps=10, noise=0.2, noisy="all")


def long_chunks(sigma: float = 1.0) -> WAM:
    """Chunks of 50 actions of 14 dims: what a two-armed robot at 50 Hz is trained on."""
    torch.manual_seed(0)
    model = replace(LONG, world=replace(LONG.world, feature_sigma=sigma))
    wam = model.build(views=1, image_hw=(16, 16), action_dim=14, proprio_dim=4)
    for layer in (
        wam.world.head,
        wam.actor.head,
        *(block.modulation for block in wam.actor.blocks),
    ):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return wam.eval()


def sampled(wam: WAM, flow: FlowConfig = FINE, n: int = 64) -> PolicyBatch:
    """Chunks sampled in one batch of n."""
    obs = type(probe(wam).obs).cat([probe(wam, i).obs for i in range(-(-n // 3))])[slice(0, n)]
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    plan = wam.act(obs, torch.arange(n), flow, generators, sampler="explore")
    mask = torch.ones(n, wam.spec.chunk, dtype=torch.bool)
    return PolicyBatch(obs=obs, plan=plan, mask=mask, advantage=torch.zeros(n))


def guard(wam: WAM, batch: PolicyBatch, flow: FlowConfig = FINE) -> float:
    """The largest log ratio that the guard found, scored in one batch."""
    policy = ClippedPolicy(replace(tiny.CONFIG.train.learner, batch=len(batch)), wam)
    return policy.first_ratio(wam, batch, flow)


def alone(batch: PolicyBatch, row: int) -> PolicyBatch:
    """A row whose features were not kept: computed again, and scored, in a batch of its own."""
    return replace(batch[slice(row, row + 1)], plan=batch.plan[slice(row, row + 1)].drop_features())


def scored_alone(wam: WAM, batch: PolicyBatch, flow: FlowConfig) -> Tensor:
    """Elementwise log-densities, every row computed in a batch of its own."""
    rows = [alone(batch, row) for row in range(len(batch))]
    with torch.no_grad():
        return torch.cat([wam.log_prob(wam.with_features(row.plan, row.obs), flow) for row in rows])


def test_long_chunks_scored_alone_pass():
    """Compared as float32 sums, some of these rows differ by 1e-4 and more, all of it rounding."""
    wam = long_chunks()
    batch = sampled(wam)
    new = scored_alone(wam, batch, FINE)
    sums = (new.sum((-1, -2)) - batch.plan.chain_log_prob.sum((-1, -2))).abs().amax(1)
    assert sums.max() > 1e-4  # what the guard must not stumble over
    for row in sums.argsort(descending=True)[:5].tolist():
        assert guard(wam, alone(batch, row)) < 1e-3


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("lr", [1e-5, 1e-4])
def test_features_of_a_world_model_that_took_one_step_are_stale(sigma, lr):
    wam = long_chunks(sigma)
    batch, acted = sampled(wam), copy.deepcopy(wam)
    optimizer, clip = torch.optim.AdamW(wam.world.parameters(), lr), probe(wam, 99)
    wam.video_loss(clip, wam.encode(clip.obs), torch.arange(3)).sum().backward()
    optimizer.step()
    forgotten = replace(batch, plan=batch.plan.drop_features())
    with pytest.raises(RuntimeError, match="changed between rollout and update"):
        guard(wam, forgotten)
    guard(acted, forgotten)


def test_features_read_under_another_noise_are_stale():
    wam = long_chunks(sigma=0.5)
    batch = sampled(wam)
    other = replace(batch, plan=replace(batch.plan.drop_features(), seed=batch.plan.seed + 1))
    with pytest.raises(RuntimeError, match="changed between rollout and update"):
        guard(wam, other)


def test_a_small_step_of_the_actor_is_noticed():
    wam = long_chunks()
    batch = sampled(wam)
    wam.actor.head.bias.data += 1e-4
    with pytest.raises(RuntimeError, match="changed between rollout and update"):
        guard(wam, batch)


@pytest.mark.parametrize(
    "flow",
    [
        FlowConfig(steps=10, noise=0.02, noisy="one"),
        FlowConfig(steps=4, noise=0.5, noisy="one"),
        FlowConfig(steps=3, noise=1.0, noisy="all"),
        FlowConfig(steps=4, noise=0.5, correlation=0.8),
        FlowConfig(steps=10, noise=0.02, noisy="one", correlation=0.95),
    ],
)
@pytest.mark.parametrize("executed", [50, 1])
def test_rounding_stays_well_below_the_tolerance(flow, executed):
    """Whatever the noise and the number of executed actions; and the tolerance is small."""
    wam = long_chunks()
    batch = sampled(wam, flow)
    mask = (torch.arange(50) < executed).expand(len(batch), -1)
    limit = rounding_tolerance(batch.plan, mask, flow)
    new = scored_alone(wam, batch, flow)
    worst = (log_prob_change(new, batch.plan.chain_log_prob, mask).abs() / limit).max()
    assert 1e-3 < worst < 0.1
    size = (batch.plan.chain_log_prob * mask[:, None, :, None]).sum((-1, -2)).abs()
    assert (limit < 1e-3 * size.mean()).all()


def test_the_tolerance_grows_as_stated():
    """With 1 / std, with the root of the number of executed entries, and with the unit."""
    wam = long_chunks()
    every, one = torch.ones(64, 50, dtype=torch.bool), torch.arange(50).expand(64, -1) < 1
    limits = []
    for noise in (0.2, 0.02):
        flow = replace(FINE, noise=noise, noisy="one")
        batch = sampled(wam, flow)
        limits.append(rounding_tolerance(batch.plan, every, flow).mean())
        few = rounding_tolerance(batch.plan, one, flow).mean()
        assert (limits[-1] / few).item() == pytest.approx(50**0.5, rel=0.2)
        coarse = rounding_tolerance(batch.plan, every, flow, 2.0**-14).mean()
        assert coarse.item() == pytest.approx(2**10 * limits[-1].item())
    assert 5 < limits[1] / limits[0] < 15


def test_features_kept_in_bfloat16_pass_when_computed_again():
    """A few of them fall on the other side of a rounding boundary: their unit is coarser."""
    wam = tiny.lively(model=replace(tiny.MODEL, feature_dtype="bfloat16")).eval()
    flow = replace(tiny.CONFIG.flow, noisy="all")
    batch = sampled(wam, flow)
    assert max(guard(wam, alone(batch, row), flow) for row in range(0, 64, 4)) < 0.05
    units = [feature_unit(wam, plan) for plan in (batch.plan, batch.plan.drop_features())]
    assert (
        units == [2.0**-24, 2.0**-16]
        and feature_unit(tiny.fresh(), batch.plan.drop_features()) == 2.0**-24
    )


def test_check_wam_passes_long_chunks():
    check_wam(long_chunks())
