"""The built-in world model and action head: what they may look at, and what they must not."""

import contextlib
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.base import WAMSpec
from wamrl.models.check import probe
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM, ImaginesFromFeatures
from wamrl.models.wam_config import WAMConfig


def at_sigma(sigma: float, **world) -> WAMConfig:
    return replace(tiny.MODEL, world=replace(tiny.MODEL.world, feature_sigma=sigma, **world))


def with_(clip, **changes):
    return replace(clip, **changes)


@pytest.mark.parametrize(
    ("views", "hw", "channels"), [(1, (16, 16), 3), (2, (24, 16), 3), (3, (8, 32), 3)]
)
def test_unpatch_inverts_patches(views, hw, channels):
    world = tiny.MODEL.build(views=views, image_hw=hw, action_dim=2, proprio_dim=4).world
    x = torch.randn(2, 3, views, *hw, channels)
    patches = world._patches(x)
    assert patches.shape == (2, 3, views * hw[0] * hw[1] // 64, 64 * channels)
    assert torch.equal(world._unpatch(patches, x.shape), x)
    # a patch is a square of one view
    assert torch.equal(patches[1, 2, 0].view(8, 8, channels), x[1, 2, 0, :8, :8])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_untrained_model_imagines_the_last_frame(steps):
    wam = tiny.fresh(model=replace(tiny.MODEL, history_offsets=(-2, 0)))
    obs = probe(wam).obs
    imagined = wam.imagine(obs, torch.arange(3), steps)
    assert torch.allclose(
        imagined, obs.frames[:, -1:].float().expand(-1, 2, -1, -1, -1, -1) / 255, atol=1e-5
    )


def test_the_context_does_not_see_the_future():
    wam = tiny.lively(model=at_sigma(0.5))  # at 1 there may be nothing of the future to see
    clip = probe(wam)
    context = wam.encode(clip.obs)
    kept = [k.clone() for k, _ in context.layers]
    features = [wam.features(context, seeds) for seeds in (torch.arange(3), torch.arange(3) + 9)]
    n = context.taps.shape[2]
    assert all(torch.equal(a, b) for a, (b, _) in zip(kept, context.layers, strict=True))
    assert torch.equal(features[0][:, :, :n], features[1][:, :, :n])  # tokens of the context
    assert not torch.allclose(features[0][:, :, n:], features[1][:, :, n:])  # tokens of the future


def test_noise_belongs_to_its_seed():
    world = tiny.fresh().world
    seeds = torch.tensor([5, 2**62 - 1, 5])
    noise = world.noise(seeds)
    torch.randn(3)  # nothing global matters
    assert torch.equal(noise, world.noise(seeds)) and torch.equal(noise[0], noise[2])
    assert torch.equal(noise[1:2], world.noise(seeds[1:2])) and not torch.equal(noise[0], noise[1])
    assert abs(noise.std() - 1) < 0.1 and abs(noise.mean()) < 0.1


def test_frames_beyond_the_end_carry_no_loss():
    """At noise level 1 the input holds nothing of the future,
    so any influence would be the loss's own.
    """
    wam = tiny.lively(model=at_sigma(1.0, noise_fraction=1.0, motion_weight=0.0))
    clip = probe(wam)
    clip.future_mask[0, 1] = clip.future_mask[1, 0] = False
    clip.future_mask[2] = False
    other = with_(clip, future=clip.future.clone())
    other.future[~clip.future_mask] = 255 - clip.future[~clip.future_mask]
    context = wam.encode(clip.obs)

    def loss(c):
        return wam.world.loss(c, context, torch.arange(len(c)))

    assert (
        torch.equal(loss(clip), loss(other)) and loss(clip)[2] == 0 and (loss(clip)[:2] > 0).all()
    )
    unmasked = replace(clip, future_mask=torch.ones_like(clip.future_mask))
    assert not torch.allclose(
        loss(unmasked), loss(replace(other, future_mask=unmasked.future_mask))
    )


def test_patches_that_are_predicted_to_move_weigh_more():
    """The weight follows the prediction, not the target; if it copies, all weigh alike."""
    config = at_sigma(1.0, noise_fraction=1.0)
    plain_world = replace(config.world, motion_weight=0.0)
    wam, plain = tiny.fresh(model=config), tiny.fresh(model=replace(config, world=plain_world))
    clip, seeds = probe(wam), torch.arange(3)
    still = clip.frames[:, -1:].expand_as(clip.future).clone()
    moved = still.clone()
    moved[:, 1, :, 8:, 8:] ^= 128  # a patch of the second frame
    residual = torch.zeros(3, 2, 4, 192)
    residual[:, 0, 1] = 0.5  # another one, in the first

    def ratio(future):
        other = replace(clip, future=future)
        losses = [w.world.loss(other, w.encode(clip.obs), seeds) for w in (wam, plain)]
        return losses[0] / losses[1]

    assert torch.allclose(ratio(moved), torch.ones(3))
    for model in (wam, plain):
        model.world._residual = lambda x: residual
    assert torch.allclose(ratio(still), torch.full((3,), 1 + 4 * 8.0), rtol=0.1)
    assert (ratio(moved) < 20).all()


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_a_motion_of_some_chance_is_imagined_with_that_share(chance):
    """The one-step imagination is the mean of what may follow, though moving patches weigh more."""
    wam = tiny.fresh(model=at_sigma(1.0, noise_fraction=1.0))
    clip = probe(wam)[torch.zeros(20).long()]  # one observation
    clip.frames.fill_(64)
    clip.future.fill_(64)
    clip.future[: round(20 * chance), ..., :8, :8, :] = 192  # a patch, in both frames
    optimizer = torch.optim.Adam(wam.world.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150)
    for _ in range(150):
        optimizer.zero_grad()
        wam.world.loss(clip, wam.encode(clip.obs), torch.arange(20)).mean().backward()
        optimizer.step()
        schedule.step()
    imagined = wam.imagine(clip[slice(0, 1)].obs, torch.zeros(1).long(), 1)
    moved = (imagined * 255 - 64)[..., :8, :8, :].mean() / 128
    assert abs(moved / chance - 1) < 0.1
    assert (imagined * 255 - 64)[..., 8:, :, :].abs().mean() < 128 * 0.02


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.0])
def test_features_depend_on_the_own_row_only(sigma):
    wam = tiny.lively(model=at_sigma(sigma)).eval()
    obs, seeds = probe(wam).obs, torch.tensor([4, 8, 15])
    every = wam.features(wam.encode(obs), seeds)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(
        wam.features(wam.encode(obs[order]), seeds[order]), every[order], atol=1e-5
    )
    one = obs[slice(1, 2)]
    assert torch.allclose(wam.features(wam.encode(one), seeds[1:2]), every[1:2], atol=1e-5)
    assert not torch.allclose(every[0], every[1], atol=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.0])
def test_only_the_last_pass_at_the_feature_sigma_carries_gradient(sigma):
    wam = tiny.lively(model=replace(at_sigma(sigma), feature_steps=3))
    obs = probe(wam).obs
    passes = []
    plain = wam.world._future

    def spy(noisy, level, context):
        passes.append((level.item(), torch.is_grad_enabled()))
        return plain(noisy, level, context)

    wam.world._future = spy
    features = wam.features(wam.encode(obs), torch.arange(3))
    features.square().sum().backward()
    assert wam.world.patch_last.weight.grad.abs().sum() > 0
    # nothing is seen of pure noise
    assert (wam.world.patch_noisy.weight.grad is not None) == (sigma < 1)
    assert passes[-1] == (sigma, True) and not any(grad for _, grad in passes[:-1])
    levels = [level for level, _ in passes]
    assert len(levels) == (1 if sigma == 1 else 4)
    assert levels == sorted(levels, reverse=True) and levels[0] == 1.0
    assert wam.spec.imagine_causes_action == (sigma < 1)


def test_the_velocity_leads_back_to_the_prediction():
    """x - sigma v is the clean frame: last + residual, wherever sigma is above the floor."""
    wam = tiny.fresh()
    obs = probe(wam).obs
    z, last = torch.randn(3, 2, 1, 16, 16, 3), obs.frames[:, -1:].float() / 127.5 - 1
    v = wam.world.velocity(z, 0.7, wam.encode(obs))
    assert torch.allclose(z - 0.7 * v, last.expand_as(z), atol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_the_context_holds_the_pass_at_pure_noise(fraction):
    """Read from there or computed again: the same features, velocities, losses and gradients."""
    wam, found = tiny.lively(model=at_sigma(1.0, noise_fraction=fraction)), []
    clip, seeds = probe(wam), torch.arange(3)
    for kept in (True, False):
        context = wam.encode(clip.obs)
        assert context.pure is not None
        if not kept:
            context = replace(context, pure=None)
        wam.zero_grad()
        features, loss = wam.features(context, seeds), wam.video_loss(clip, context, seeds)
        (features.square().sum() + loss.sum()).backward()
        velocity = wam.world.velocity(wam.world.noise(seeds), 1.0, context)
        zero = torch.zeros(())
        gradients = [
            p.grad if p.grad is not None else zero.expand_as(p) for p in wam.world.parameters()
        ]
        found.append([features, loss, velocity, *gradients])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))
    assert wam.world.patch_noisy.weight.grad.abs().sum() > 0 or fraction == 1


def test_features_at_pure_noise_hold_the_imagination():
    """Views, history and the future in one:
    the last tap is all that the head needs; else there is a pass.
    """
    model = replace(tiny.MODEL, history_offsets=(-2, 0))
    wam = model.build(views=2, image_hw=(16, 8), action_dim=2, proprio_dim=4)
    torch.nn.init.normal_(wam.world.head.weight, std=0.05)
    clip, seeds = probe(wam), torch.arange(3)
    features = wam.features(wam.encode(clip.obs), seeds)
    wanted = wam.imagine(clip.obs, seeds, 1)
    assert torch.allclose(wam.imagine(clip.obs, seeds, 1, features), wanted, atol=1e-6)
    assert not torch.allclose(wam.imagine(clip.obs, seeds, 1, features.flip(0)), wanted, atol=1e-2)
    assert torch.equal(
        wam.imagine(clip.obs, seeds, 2, features.flip(0)), wam.imagine(clip.obs, seeds, 2)
    )
    assert isinstance(wam.world, ImaginesFromFeatures)
    for other in (at_sigma(0.5), at_sigma(1.0, taps=(1,))):
        assert tiny.lively(model=other).world.imagine_from_features(features, clip.obs) is None


def test_the_instruction_and_the_state_reach_the_features():
    wam = tiny.lively()
    obs = probe(wam).obs

    def read(o):
        return wam.features(wam.encode(o), torch.arange(3))

    assert not torch.allclose(
        read(obs), read(replace(obs, text=("open the drawer",) * 3)), atol=1e-4
    )
    assert not torch.allclose(read(obs), read(replace(obs, proprio=obs.proprio + 1)), atol=1e-4)
    mixed = read(replace(obs, text=("probe", "open the drawer", "")))
    assert torch.allclose(mixed[:1], read(obs)[:1], atol=1e-5)


def test_folding_repeats_equals_separate_calls():
    wam, g = tiny.lively(), torch.Generator().manual_seed(0)
    features = torch.randn(3, 2, 5, 32, generator=g)
    condition = wam.actor.condition(features, torch.randn(3, 4, generator=g))
    a, sigma = torch.randn(3, 4, 8, 2, generator=g), torch.rand(3, 4, generator=g)
    folded = wam.actor.velocity(a.flatten(0, 1), sigma.flatten(), condition, repeat=4).unflatten(
        0, (3, 4)
    )
    for j in range(4):
        assert torch.allclose(
            folded[:, j], wam.actor.velocity(a[:, j], sigma[:, j], condition), atol=1e-5
        )


def test_every_tap_reaches_the_actions():
    wam = tiny.lively()
    features = torch.randn(1, 2, 5, 32, requires_grad=True)
    velocity = wam.actor.velocity(
        torch.randn(1, 8, 2), torch.ones(1), wam.actor.condition(features, torch.zeros(1, 4))
    )
    velocity.square().sum().backward()
    assert (features.grad.abs().sum((0, 2, 3)) > 0).all()


def test_actions_beyond_the_end_carry_no_loss():
    wam = tiny.lively()
    clip = probe(wam)
    clip.action_mask[0, 3:] = False
    other = replace(clip, actions=clip.actions.clone())
    features = wam.features(wam.encode(clip.obs), torch.arange(3)).detach()
    other.actions.requires_grad_(True)
    loss = wam.action_loss(other, features, torch.arange(3))
    assert loss.shape == (3,)
    # The input of the masked actions is seen by the others (self-attention);
    # their own error is not counted.
    wam.actor.head.weight.data.zero_()
    a, b = (wam.action_loss(c, features, torch.arange(3)) for c in (clip, other))
    other.actions.data[0, 3:] += 1
    c = wam.action_loss(other, features, torch.arange(3))
    assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "named"), [(768, 12, 12, 1e8), (2304, 28, 24, 2e9)]
)
def test_the_same_classes_scale_to_the_named_sizes(width, depth, heads, named):
    """`VideoDiTConfig` promises these; counted without memory."""
    world = VideoDiTConfig(
        width=width, depth=depth, heads=heads, taps=(depth // 3, 2 * depth // 3, depth)
    )
    cfg = WAMConfig(world=world, actor=ActionHeadConfig(width=256))
    with torch.device("meta"):
        wam = cfg.build(views=2, image_hw=(256, 256), action_dim=7, proprio_dim=9)
    count = sum(p.numel() for p in wam.parameters())
    assert all(p.is_meta for p in wam.parameters()) and abs(count / named - 1) < 0.2, f"{count:.3g}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"world": VideoDiTConfig(width=30, heads=4)}, "heads=4 must divide width=30"),
        ({"world": VideoDiTConfig(depth=2, taps=(3,))}, "name blocks of 1..2"),
        ({"world": VideoDiTConfig(patch=5)}, "not divisible into patches"),
        ({"actor": ActionHeadConfig(width=30)}, "heads=4 must divide width=30"),
        ({"frame_offsets": (8, 4)}, "ascending"),
        ({"frame_offsets": (0, 4)}, "model.frame_offsets=0 .* >= 1"),
        ({"history_offsets": (-2,)}, "end with 0"),
        ({"chunk": 0}, "model.chunk=0 .* >= 1"),
        ({"world": VideoDiTConfig(feature_sigma=1.5)}, "feature_sigma=1.5 .* <= 1"),
    ],
)
def test_bad_configurations_are_refused_in_words(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        WAMConfig(**change).build(views=1, image_hw=(64, 64), action_dim=2, proprio_dim=4)


def test_a_spec_is_checked():
    spec = tiny.fresh().spec
    with pytest.raises(ValueError, match="ascend"):
        replace(spec, history_offsets=(0, -1)).validate()
    assert isinstance(spec, WAMSpec) and spec.taps == ("block1", "block2")


def test_recomputed_activations_give_the_same_gradients():
    found = []
    for recompute in (False, True):
        wam = tiny.lively(model=at_sigma(1.0, recompute=recompute))
        clip, seeds = probe(wam), torch.arange(3)
        context = wam.encode(clip.obs)
        (
            wam.video_loss(clip, context, seeds).sum() + wam.features(context, seeds).square().sum()
        ).backward()
        found.append([p.grad for p in wam.world.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and len(found[0]) > 20


def test_in_bfloat16_the_world_model_is_near_and_the_actor_exact():
    """Weights, features and losses are float32 to the outside;
    log-probabilities score what was sampled.
    """
    wam = tiny.lively(model=replace(tiny.MODEL, compute="bfloat16"))
    plain = tiny.lively()
    clip, seeds = probe(wam), torch.arange(3)
    context = wam.encode(clip.obs)
    features, loss = wam.features(context, seeds), wam.video_loss(clip, context, seeds)
    assert features.dtype == loss.dtype == torch.float32 and all(
        p.dtype == torch.float32 for p in wam.parameters()
    )
    wanted = plain.features(plain.encode(clip.obs), seeds)
    assert 1e-5 < (features - wanted).abs().mean() / wanted.abs().mean() < 0.02
    assert torch.allclose(loss, plain.video_loss(clip, plain.encode(clip.obs), seeds), rtol=0.1)
    loss.sum().backward()
    assert wam.world.blocks[0].mlp[0].weight.grad.dtype == torch.float32
    flow = FlowConfig(steps=3, noisy="all")
    plan = wam.act(
        clip.obs,
        seeds,
        flow,
        [torch.Generator().manual_seed(i) for i in range(3)],
        sampler="explore",
    )
    assert (wam.log_prob(plan, flow) - plan.chain_log_prob).abs().max() < 1e-4
    assert wam.imagine(clip.obs, seeds).dtype == torch.float32


@pytest.mark.parametrize("noisy", ["one", "all"])
def test_acting_and_scoring_never_wait_for_a_value_on_the_device(noisy, monkeypatch):
    """On the meta device nothing is computed: who asks for a value,
    or for how many of something there are, fails.
    """
    # autocast does not know the device
    monkeypatch.setattr(WAM, "precision", lambda self: contextlib.nullcontext())
    with torch.device("meta"):
        wam = tiny.MODEL.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4)
    obs, flow = probe(wam).obs.to("meta"), FlowConfig(steps=3, noisy=noisy)
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    plan = wam.act(obs, torch.arange(3), flow, generators, sampler="explore")
    wam.log_prob(plan, flow).sum().backward()
    assert plan.actions.device.type == plan.features.device.type == "meta"
    with pytest.raises(NotImplementedError):
        plan.actions[plan.actions > 0]


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_noise_that_nobody_looks_at_is_not_drawn(sigma, monkeypatch):
    wam = tiny.lively(model=at_sigma(sigma))
    drawn = []
    plain = wam.world.noise
    monkeypatch.setattr(wam.world, "noise", lambda seeds: drawn.append(1) or plain(seeds))
    wam.features(wam.encode(probe(wam).obs), torch.arange(3))
    assert len(drawn) == (sigma < 1)
