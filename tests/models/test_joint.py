"""The joint family: one transformer for video and actions, and who owns which gradient."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.support import tiny
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import DemoConfig, collect
from wamrl.data.recording import InMemory
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.check import check_wam, probe
from wamrl.models.joint import JointActorConfig, JointConfig
from wamrl.models.wam import WAM
from wamrl.recipes.joint import joint_point
from wamrl.rl.batch import PolicyBatch
from wamrl.rl.policy import ClippedPolicy
from wamrl.rl.ppo import PPOConfig
from wamrl.rl.world_update import MixedBatch, WorldUpdate, WorldUpdateConfig, frozen_copy
from wamrl.sft import joint_loss

SEEDS = torch.arange(3)


def joint(*, actor=None, **world) -> WAM:
    """Two blocks of width 16; what starts at zero is random."""
    model = replace(
        tiny.MODEL,
        world=JointConfig(width=16, depth=2, heads=2, patch=8, **world),
        actor=actor or JointActorConfig(hidden=16),
    )
    wam = tiny.fresh(model=model)
    for layer in (wam.world.head, wam.actor.decoder[2]) if actor is None else (wam.world.head,):
        nn.init.normal_(layer.weight, std=0.3)
    return wam


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_it_keeps_the_contract(sigma):
    check_wam(joint(feature_sigma=sigma))


def test_the_built_in_actor_reads_it_too():
    check_wam(joint(actor=ActionHeadConfig(width=16, heads=2)))


def test_its_actor_wants_a_joint_world_model():
    model = replace(tiny.MODEL, actor=JointActorConfig())
    with pytest.raises(ValueError, match="take it with a JointConfig.*VideoDiT"):
        tiny.fresh(model=model)


def test_patches_and_back():
    wam = tiny.fresh(
        model=replace(tiny.MODEL, world=JointConfig(patch=4), actor=JointActorConfig())
    )
    clip = probe(wam)
    context = wam.encode(clip.obs)
    again = wam.world.to_frames(wam.world.to_latents(clip.future, context), context)
    assert torch.allclose(again, clip.future / 255, atol=1e-5)


def test_the_recipes_latents_are_of_unit_size():
    """With smaller ones the actions' loss drowned the video's, and nothing was imagined."""
    cfg = joint_point()
    episodes = collect(DemoConfig(env=cfg.env, episodes=4, n_workers=0))
    model = cfg.model
    offsets = (model.history_offsets, model.frame_offsets)
    demos = ClipDataset(InMemory(episodes), *offsets, model.chunk, only_success=True)
    clip = demos.sample(64, torch.Generator().manual_seed(0))
    wam = model.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4)
    z = wam.world.to_latents(clip.future, wam.encode(clip.obs))
    assert 0.5 < z[clip.future_mask].square().mean().sqrt() < 2


def test_actions_in_their_own_pass_are_those_of_the_joint_one():
    """Where both have the same noise level, the actor's last tokens are the joint pass's."""
    wam = joint()
    clip = probe(wam)
    context = wam.encode(clip.obs)
    trunk = wam.world.trunk
    passes = []
    hook = trunk.register_forward_hook(lambda module, args, out: passes.append(out[0]))
    z = wam.world.noise(SEEDS)
    _, features = wam.world.predict(z, torch.ones(3), context)
    condition = wam.condition(features, clip.proprio)
    wam.actor.velocity(torch.randn(3, 8, 2), torch.ones(3), condition)
    hook.remove()
    both, alone = passes
    assert torch.allclose(both[:, -8:], alone, atol=1e-5)


def test_the_levels_are_independent():
    """Known actions change what is imagined, unknown ones do not, at any level of the video."""
    wam = joint()
    context = wam.encode(probe(wam).obs)
    z = wam.world.noise(SEEDS)
    one, other = torch.randn(2, 3, 8, 2)
    for sigma in (torch.ones(3), torch.tensor([0.2, 0.5, 0.9])):
        known = [wam.world.predict(z, sigma, wam.world.given(context, a))[0] for a in (one, other)]
        assert not torch.allclose(*known, atol=1e-3)
        unknown = [
            wam.world.predict(z, sigma, replace(context, actions=a))[0] for a in (one, other)
        ]
        assert torch.equal(*unknown)


def test_masked_actions_are_not_seen_by_the_video_loss():
    wam = joint(action_noise_fraction=0.0)
    clip = probe(wam)
    clip.action_mask[:, 4:] = False
    other = replace(clip, actions=clip.actions.clone())
    other.actions[:, 4:] += 1
    losses = [wam.video_loss(c, wam.encode(c.obs), SEEDS) for c in (clip, other)]
    assert torch.equal(*losses)
    other.actions[:, :4] += 1
    assert not torch.equal(losses[0], wam.video_loss(other, wam.encode(other.obs), SEEDS))


def test_the_video_loss_takes_normalised_actions():
    wam = joint(action_noise_fraction=0.0)
    clip = probe(wam)
    plain = wam.video_loss(clip, wam.encode(clip.obs), SEEDS)
    wam.normalize.action_scale.mul_(2)
    wam.normalize.action_shift.add_(0.5)
    scaled = replace(clip, actions=2 * clip.actions + 0.5)
    assert torch.allclose(wam.video_loss(scaled, wam.encode(clip.obs), SEEDS), plain, atol=1e-6)


def trained(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def rest_of_the_world(wam: WAM) -> nn.ModuleList:
    return nn.ModuleList(m for m in wam.world.children() if m is not wam.world.trunk)


def policy_step(wam: WAM, shared: bool = False) -> ClippedPolicy:
    """One update of the policy on random decisions."""
    clip = probe(wam)
    flow = tiny.CONFIG.flow
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    plan = wam.act(clip.obs, SEEDS, flow, generators, sampler="explore")
    advantage = torch.tensor([1.0, -1.0, 0.5])
    batch = PolicyBatch(obs=clip.obs, plan=plan, mask=clip.action_mask, advantage=advantage)
    policy = ClippedPolicy(PPOConfig(epochs=1, batch=3, warmup=0, lr=1e-3, shared=shared), wam)
    assert policy.first_ratio(wam, batch, flow) < 1e-4
    policy.improve(wam, batch, flow, torch.Generator().manual_seed(0))
    return policy


def test_demonstrations_train_everything_by_both_losses():
    wam = joint()
    clip = probe(wam)
    _, action = joint_loss(wam, clip, SEEDS.expand(3, 3), 3, 3.0)
    action.backward()
    assert trained(wam.actor) and trained(wam.world.trunk) and trained(wam.world.patch_past)
    wam.zero_grad()
    wam.video_loss(clip, wam.encode(clip.obs), SEEDS).sum().backward()
    assert trained(wam.world.trunk.action) and trained(wam.world.head) and not trained(wam.actor)


def test_the_policy_gradient_trains_the_actors_own_part():
    wam = joint()
    before = tiny.snapshot(wam)
    policy_step(wam)
    changed = tiny.changed(wam, before)
    assert changed and all(name.startswith("actor.") for name in changed)
    assert not trained(wam.world)


def test_the_policy_gradient_trains_the_trunk_where_it_is_told_to():
    wam = joint()
    before = tiny.snapshot(wam)
    policy = policy_step(wam, shared=True)
    changed = tiny.changed(wam, before)
    of_trunk = {name for name in changed if name.startswith("world.trunk.")}
    assert "world.trunk.blocks.0.attention.q.weight" in of_trunk
    assert {name for name in changed if name.startswith("world.")} == of_trunk
    # and a resumed optimiser goes on with the trunk's moments
    other = ClippedPolicy(policy.cfg, wam)
    other.load_state_dict(policy.state_dict())
    saved = policy.state_dict()["optimizer"]["state"]
    assert len(saved) == len(list(wam.actor.parameters())) + len(list(wam.world.trunk.parameters()))


def test_an_actor_that_shares_nothing_is_not_asked_to():
    with pytest.raises(ValueError, match="train.learner.shared.*leave it False"):
        ClippedPolicy(PPOConfig(shared=True), tiny.fresh())


def mixed(wam: WAM) -> MixedBatch:
    clip = probe(wam)
    return MixedBatch(clip=clip, own=torch.ones(3, dtype=torch.bool), seeds=SEEDS.expand(3, 3))


@pytest.mark.parametrize("shared", [False, True])
def test_cloning_leaves_the_trunk_alone_unless_it_is_shared(shared):
    wam = joint()
    cfg = WorldUpdateConfig(batch=3, shared=shared)
    update = WorldUpdate(cfg, ("clone",), wam, frozen_copy(wam))
    update.gradients(wam, mixed(wam), 3.0, video=False)
    assert trained(wam.actor)
    assert trained(wam.world.trunk) == shared
    assert not trained(rest_of_the_world(wam))


def test_the_kl_holds_what_the_actor_reads_of_the_trunk():
    """0 at the start; the gradient that it has once the trunk has moved is the world model's."""
    wam = joint()
    update = WorldUpdate(WorldUpdateConfig(batch=3), ("world",), wam, frozen_copy(wam))
    losses, _ = update.gradients(wam, mixed(wam), 3.0, video=True)
    assert losses["kl"].shape == (2,) and not losses["kl"].any()
    for weight in wam.world.trunk.parameters():
        weight.data.mul_(1.1)
    wam.zero_grad()
    update._kl_loss(wam, mixed(wam)).backward()
    assert trained(wam.world.trunk.blocks[1].attention.kv) and not trained(wam.actor)
    # the last block's query is read by the actions' pass alone, which nothing holds
    assert not trained(wam.world.trunk.blocks[1].attention.q)


def test_a_copy_is_whole():
    """Copies run their actions through their own trunk."""
    wam = joint()
    other = frozen_copy(wam)
    features = torch.randn(2, 2, 14, 32)
    a = torch.randn(2, 8, 2)

    def velocity(model):
        return model.actor.velocity(a, torch.ones(2), model.condition(features, torch.zeros(2, 4)))

    before = velocity(other)
    assert torch.equal(before, velocity(wam))
    for weight in wam.world.trunk.parameters():
        weight.data.mul_(1.5)
    assert torch.equal(velocity(other), before)
    assert not torch.equal(velocity(wam), before)
