"""The leash: against torch.distributions, and what it does over time."""

import torch
from torch.distributions import Independent, Normal, kl_divergence

from wamrl.rl.latent_kl import FLOOR, LatentKL


def statistics() -> tuple[LatentKL, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    z_old = torch.randn(6, 2, 5, 8, generator=g) * torch.linspace(0.2, 3, 8)
    z = z_old + 0.3 * torch.randn(z_old.shape, generator=g)
    kl = LatentKL(2, 8, ema=0.7)
    kl.fit(z_old)
    return kl, z, z_old


def test_it_is_the_kl_of_diagonal_gaussians_per_channel():
    kl, z, z_old = statistics()
    for _ in range(3):
        kl.observe(LatentKL.moments(1.7 * z))
    mean, variance = kl(z, z_old).mean(0), kl.variance_term()
    new = Independent(Normal(z, kl.var.sqrt()[:, None].expand_as(z)), 1)
    old = Independent(Normal(z_old, kl.var_old.sqrt()[:, None].expand_as(z)), 1)
    summed = kl_divergence(new, old).mean((0, 2))  # over channels, averaged over samples and tokens
    assert torch.allclose(kl.scale("sum") * (mean + variance), summed, rtol=1e-4)
    wanted = summed / z.shape[-1]
    assert kl.scale("mean") == 1 and torch.allclose(mean + variance, wanted, rtol=1e-4)
    assert (mean > 0).all() and (variance > 0).all()


def test_it_is_exactly_zero_where_nothing_changed():
    kl, _, z_old = statistics()
    mean, variance = kl(z_old, z_old), kl.variance_term()
    assert (mean == 0).all() and (variance == 0).all()


def test_only_the_mean_term_trains():
    kl, z, z_old = statistics()
    z, z_old = z.requires_grad_(True), z_old.requires_grad_(True)
    kl.observe(LatentKL.moments(z))
    mean, variance = kl(z, z_old).mean(0), kl.variance_term()
    assert not variance.requires_grad
    mean.sum().backward()
    assert z.grad.abs().sum() > 0 and z_old.grad is None
    assert torch.allclose(z.grad, (z - z_old).detach() / kl.var_old[:, None] / (6 * 5 * 8))


def test_the_variance_follows_by_exponential_average():
    kl, z, _ = statistics()
    start = kl.var.clone()
    kl.observe(LatentKL.moments(z))
    assert torch.allclose(kl.var, 0.7 * start + 0.3 * LatentKL.variance(LatentKL.moments(z)))
    assert torch.equal(kl.var_old, start)


def test_moments_add_up_over_parts_of_a_batch():
    z = 50 + torch.randn(7, 2, 5, 8)
    parts = sum(LatentKL.moments(part) for part in z.split([3, 0, 4]))
    assert torch.allclose(LatentKL.variance(parts), z.var((0, 2), unbiased=False), rtol=1e-5)


def test_dead_channels_do_not_explode():
    z = torch.randn(4, 1, 3, 8)
    z[..., 0] = 5.0  # constant
    kl = LatentKL(1, 8)
    kl.fit(z)
    assert kl.var_old[0, 0] >= FLOOR * kl.var_old.mean() * 0.99
    mean, variance = kl(z + 0.01, z), kl.variance_term()
    assert mean.isfinite().all() and variance.isfinite().all()


def test_half_precision_features_are_compared_in_float32():
    kl, z, z_old = statistics()
    assert kl(z.bfloat16(), z_old.bfloat16()).dtype == torch.float32
