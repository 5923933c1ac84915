"""Noise along a chunk: its covariance, its density, and that Flow-SDE keeps marginals with it."""

import pytest
import torch

from tests.models.test_flow import STD, gaussian_velocity
from wamrl.models import chunk_noise
from wamrl.models.flow import (
    FlowConfig,
    chain_log_prob,
    noisy_steps,
    sde_coefficients,
    sde_sample,
    sde_step,
    time_grid,
)

PHI = 0.8
ACTIONS = 6


def covariance():
    return torch.tensor([[PHI ** abs(i - j) for j in range(ACTIONS)] for i in range(ACTIONS)])


def test_each_action_has_variance_one_and_neighbours_share_it():
    z = torch.randn(200_000, ACTIONS, 1, generator=torch.Generator().manual_seed(0))
    e = chunk_noise.colour(z, PHI)
    assert torch.allclose(torch.cov(e[..., 0].T), covariance(), atol=0.02)
    back, _ = chunk_noise.whiten(e, PHI)
    assert torch.allclose(back, z, atol=1e-5)


def test_the_mean_of_a_chunk_moves_further():
    """What it is for: of ten actions, at the same size each."""
    z = torch.randn(20_000, 10, 1, generator=torch.Generator().manual_seed(0))
    alone = z.mean(1).std()
    together = chunk_noise.colour(z, PHI).mean(1).std()
    assert alone == pytest.approx(10**-0.5, rel=0.02)
    assert together > 2.2 * alone


@pytest.mark.parametrize("executed", [1, 3, ACTIONS])
def test_the_density_of_the_executed_actions_is_that_of_a_multivariate_normal(executed):
    """Summed over a prefix, it is the density of the prefix, whatever came after it."""
    g = torch.Generator().manual_seed(1)
    x, v = torch.randn(2, 8, ACTIONS, 1, generator=g)
    grid = time_grid(4)
    step = torch.full((8,), 2)
    x_next, log_prob = sde_step(x, v, step, grid, 0.5, correlation=PHI)
    s, d = 0.5, 0.25
    g2 = 0.5**2 * s / (1 - s)
    x0, x1 = (x - s * v)[..., 0], (x + (1 - s) * v)[..., 0]
    mean = x0 * (1 - (s - d)) + x1 * (s - d) - g2 * d / (2 * s) * x1 @ covariance()
    part = slice(0, executed)
    normal = torch.distributions.MultivariateNormal(
        mean[:, part].double(), (g2 * d * covariance())[part, part].double()
    )
    expected = normal.log_prob(x_next[:, part, 0].double())
    assert torch.allclose(log_prob[:, part, 0].double().sum(-1), expected, atol=1e-4)


@pytest.mark.parametrize("sde", ["marginal", "plain"])
def test_sampling_then_scoring_gives_the_same_log_probability(sde):
    g = torch.Generator().manual_seed(0)
    cfg = FlowConfig(correlation=PHI, sde=sde)
    cfg.validate()
    which = noisy_steps(cfg, 64, g)
    eps = torch.randn(64, which.shape[1], ACTIONS, 4, generator=g)
    start = torch.randn(64, ACTIONS, 4, generator=g)
    _, chain = sde_sample(gaussian_velocity, start, cfg, which, eps)
    again = chain_log_prob(gaussian_velocity, chain, cfg)
    assert (again - chain.log_prob).sum((-1, -2)).abs().max() < 1e-4


def test_no_correlation_is_the_limit_of_little():
    g = torch.Generator().manual_seed(2)
    x, v, eps = torch.randn(3, 8, ACTIONS, 2, generator=g)
    step = torch.zeros(8, dtype=torch.long)
    none, little = (
        sde_step(x, v, step, time_grid(4), 0.5, correlation=phi, eps=eps) for phi in (0.0, 1e-6)
    )
    for a, b in zip(none, little, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_marginals_are_kept_and_the_drift_of_independent_noise_would_not_keep_them(monkeypatch):
    """Data of independent actions stay so: variance within 3 % of the data's, no correlation."""

    def end():
        g = torch.Generator().manual_seed(1)
        cfg = FlowConfig(steps=100, noise=0.5, correlation=PHI)
        x = torch.randn(1000, ACTIONS, 10, generator=g)
        eps = torch.randn(1000, cfg.steps, ACTIONS, 10, generator=g)
        x, _ = sde_sample(gaussian_velocity, x, cfg, noisy_steps(cfg, len(x), g), eps)
        return torch.cov(x.transpose(0, 1).flatten(1)) / STD**2

    kept = end()
    assert kept.diagonal().mean().item() == pytest.approx(1, rel=0.03)
    assert kept.diagonal(1).abs().max() < 0.05
    monkeypatch.setattr(chunk_noise, "covary", lambda x, phi: x)
    assert end().diagonal(1).min() > 0.2


def test_the_half_precision_of_autocast_does_not_reach_it():
    g = torch.Generator().manual_seed(3)
    x, v, eps = torch.randn(3, 8, ACTIONS, 2, generator=g)
    options = {"correlation": PHI, "eps": eps}
    step = torch.zeros(8, dtype=torch.long)
    _, right = sde_step(x, v, step, time_grid(4), 0.5, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, log_prob = sde_step(x, v, step, time_grid(4), 0.5, **options)
    assert log_prob.dtype == torch.float32
    assert torch.equal(log_prob, right)


def test_the_step_that_replaces_noise_refuses_it():
    with pytest.raises(ValueError, match="correlation=0"):
        FlowConfig(sde="preserving", noisy="all_but_last", correlation=0.5).validate()


def test_only_the_corrected_drift_takes_noise_away():
    step = torch.arange(4)
    for sde, takes in [("marginal", True), ("plain", False), ("preserving", False)]:
        removed = sde_coefficients(step, time_grid(4), 0.5, sde)[4]
        assert bool((removed > 0).all()) == takes
