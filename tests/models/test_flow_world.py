"""`FlowWorldModel`: the loop, the loss and what they ask of a subclass."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.base import WAMSpec, WorldModelConfig
from wamrl.models.check import check_wam, probe
from wamrl.models.flow import draws
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.types import Obs


class Pooled(FlowWorldModel):
    """Latents are 4 x 4 differences from the present frame: no frames without their context."""

    def __init__(self, spec: WAMSpec):
        super().__init__()
        self.spec = spec
        self.feature_dim = 8
        self.latent_shape = (len(spec.frame_offsets), spec.views * 4 * 4 * 3)
        size = self.latent_shape[0] * self.latent_shape[1]
        self.inner = nn.Linear(size + self.latent_shape[1] + 1, 8)
        self.outer = nn.Linear(8, size)

    def encode(self, obs: Obs) -> Tensor:
        return self._pooled(obs.frames[:, -1:])[:, 0]

    def predict(self, z: Tensor, sigma: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([z.flatten(1) * (1 - sigma)[:, None], context, sigma[:, None]], 1)
        hidden = self.inner(x).tanh()
        clean = self.outer(hidden).view_as(z)
        return (z - clean) / sigma.clamp(min=1e-3).view(-1, 1, 1), hidden[:, None, None]

    def to_latents(self, future: Tensor, context: Tensor) -> Tensor:
        return self._pooled(future) - context[:, None]

    def to_frames(self, z: Tensor, context: Tensor) -> Tensor:
        v = self.spec.views
        h, w = self.spec.image_hw
        x = (z + context[:, None]).view(*z.shape[:2], v, 4, 4, 3)
        x = x.repeat_interleave(h // 4, 3).repeat_interleave(w // 4, 4)
        return ((x + 1) / 2).clamp(0, 1)

    def _pooled(self, frames: Tensor) -> Tensor:
        x = frames.float() / 127.5 - 1
        x = x.unflatten(4, (4, -1)).unflatten(3, (4, -1))
        return x.mean((4, 6)).flatten(2)


@dataclass(frozen=True, kw_only=True)
class PooledConfig(WorldModelConfig):
    feature_sigma: float = 1.0

    @property
    def tap_names(self) -> tuple[str, ...]:
        return ("hidden",)

    def validate(self) -> None:
        pass

    def build(self, spec: WAMSpec) -> Pooled:
        return Pooled(spec)


def pooled(sigma: float = 1.0, **more) -> WAM:
    torch.manual_seed(0)
    cfg = WAMConfig(
        world=PooledConfig(feature_sigma=sigma),
        actor=ActionHeadConfig(width=32, heads=2),
        frame_offsets=(4, 8),
        chunk=8,
        **more,
    )
    return cfg.build(views=2, image_hw=(16, 8), action_dim=2, proprio_dim=4)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.0])
def test_a_subclass_keeps_the_contract(sigma):
    check_wam(pooled(sigma))


@pytest.mark.parametrize(
    ("name", "broken", "sentence"),
    [
        ("to_latents", lambda z: z[:, :1], "to_latents gives"),
        ("predict", lambda found: (found[0][:, :1], found[1]), "the velocity is"),
    ],
)
def test_parts_of_another_shape_are_named(name, broken, sentence):
    wam = pooled()
    plain = getattr(wam.world, name)
    setattr(wam.world, name, lambda *args: broken(plain(*args)))
    with pytest.raises(ValueError, match=sentence):
        check_wam(wam)


def decodes_without_the_past(world):
    plain = world.to_frames
    world.to_frames = lambda z, context: plain(z, torch.zeros_like(context))


def counts_what_was_cut(world):
    """As groups of two frames of which one is enough."""
    world.latent_mask = lambda mask: mask.any(1, keepdim=True).expand(-1, mask.shape[1])


def counts_nothing(world):
    world.latent_mask = lambda mask: mask & False


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (decodes_without_the_past, "to_latents depends on the past and to_frames does not"),
        (counts_what_was_cut, "latents that hold frame 2 of 2 where the episode"),
        (counts_nothing, "latent_mask drops latents though all frames are real"),
    ],
)
def test_the_way_into_latents_and_back_is_checked(break_it, sentence):
    wam = pooled()
    break_it(wam.world)
    with pytest.raises(ValueError, match=sentence):
        check_wam(wam)


def test_one_step_ends_at_the_prediction_and_the_loss_measures_it():
    """At sigma = 1 every sample's loss is |x_hat - x|^2, and x_hat is what is imagined."""
    wam = pooled()
    wam.world.noise_fraction = 1.0
    clip = probe(wam)
    seeds = torch.arange(3)
    context = wam.encode(clip.obs)
    loss = wam.video_loss(clip, context, seeds)
    level = torch.ones(3)
    z = wam.world.noise(seeds)
    velocity, _ = wam.world.predict(z, level, context)
    x = wam.world.to_latents(clip.future, context)
    assert torch.allclose(loss, (z - velocity - x).square().mean((1, 2)), rtol=1e-4)
    frames = wam.world.to_frames(z - velocity, context)
    assert torch.allclose(wam.imagine(clip.obs, seeds, 1), frames, atol=1e-6)


def test_nearly_clean_samples_weigh_no_more_than_those_at_the_floor():
    wam = pooled()
    wam.world.noise_fraction = 0.0
    clip = probe(wam)
    seeds = torch.arange(3)
    context = wam.encode(clip.obs)
    found = []
    for floor in (1e-6, 0.999999):  # no weight at all; everything is below the floor
        wam.world.sigma_floor = floor
        found.append(wam.video_loss(clip, context, seeds))
    sigma, _ = draws(seeds, 2, wam.world.latent_shape)
    assert torch.allclose(found[1] / found[0], sigma[:, 0].square(), rtol=1e-3)


def test_it_learns_and_only_real_frames_count():
    wam = pooled()
    clip = probe(wam)
    clip.future_mask[0, 1] = False
    other = replace(clip, future=clip.future.clone())
    other.future[0, 1] = 255 - other.future[0, 1]
    wam.world.noise_fraction = 1.0
    seeds = torch.arange(3)
    losses = [wam.video_loss(c, wam.encode(c.obs), seeds) for c in (clip, other)]
    assert torch.equal(*losses)
    optimizer = torch.optim.Adam(wam.world.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        wam.video_loss(clip, wam.encode(clip.obs), seeds).mean().backward()
        optimizer.step()
    assert wam.video_loss(clip, wam.encode(clip.obs), seeds).mean() < 0.5 * losses[0].mean()


def test_only_the_pass_that_is_read_carries_gradient():
    wam = pooled(0.5, feature_steps=3)
    passes = []
    plain = wam.world.predict

    def spy(z, sigma, context):
        passes.append((sigma[0].item(), torch.is_grad_enabled()))
        return plain(z, sigma, context)

    wam.world.predict = spy
    wam.features(wam.encode(probe(wam).obs), torch.arange(3))
    assert [grad for _, grad in passes] == [False, False, False, True]
    assert passes[0][0] == 1.0 and passes[-1][0] == 0.5
