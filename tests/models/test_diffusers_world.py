"""LTX and Cosmos of diffusers as world models: the library's numbers, adapters, sizes, contract.

What they share with Wan is in test_wan.py and test_lora.py.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from tests.support.small_diffusers import built, model, small
from wamrl.models.check import check_wam, probe
from wamrl.models.lora import LoRAConfig
from wamrl.models.ltx import from_tokens, to_tokens
from wamrl.recipes.cosmos import cosmos_2b
from wamrl.recipes.ltx import ltx_2b, ltx_point
from wamrl.runtime import sharding

diffusers = pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusers]'")
torch.set_num_threads(1)
FAMILIES = ("ltx", "cosmos")
SIGMA = torch.tensor([1.0, 0.4, 0.7])
ENV = {"views": 1, "image_hw": (256, 256), "action_dim": 4, "proprio_dim": 8}


def velocity(wam, network=None) -> torch.Tensor:
    """On the probe; by another network, where one is given."""
    world = wam.world
    if network is not None:
        world = copy.deepcopy(world)
        world.transformer = network
    context = world.encode(probe(wam).obs)
    return world.predict(world.noise(torch.arange(3)), SIGMA, context)[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"feature_sigma": 0.5}], ids=["noise", "denoised"])
def test_it_keeps_the_contract(family, options):
    check_wam(built(family, views=2, **options))


def test_the_recipe_keeps_the_contract():
    cfg = ltx_point()
    torch.manual_seed(0)
    check_wam(cfg.model.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4))


def test_ltx_velocity_is_that_of_the_librarys_class():
    wam = built("ltx", patch=1)
    world = wam.world
    context = wam.encode(probe(wam).obs)
    z = world.noise(torch.arange(3))
    found, features = world.predict(z, SIGMA, context)

    direct = diffusers.LTXVideoTransformer3DModel(**world.cfg.sizes())
    direct.load_state_dict(world.transformer.state_dict())
    clip = torch.cat([context.z, z], 1)
    n, h, w = (clip.shape[i] for i in (1, 3, 4))
    tokens = clip.permute(0, 1, 3, 4, 2).reshape(3, n * h * w, -1)
    timestep = torch.zeros(3, n, h * w)
    timestep[:, 1:] = 1000 * SIGMA[:, None, None]
    out = direct(
        tokens,
        context.said,
        timestep.flatten(1),
        torch.ones(3, context.said.shape[1]),
        num_frames=n,
        height=h,
        width=w,
        rope_interpolation_scale=(1 / 25, 1, 1),
    ).sample
    out = out.view(3, n, h, w, -1).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(found, out[:, 1:], rtol=0, atol=1e-6)
    assert features.shape == (3, 2, n * h * w, 24)


def test_cosmos_velocity_is_that_of_the_librarys_class():
    wam = built("cosmos")
    world = wam.world
    context = wam.encode(probe(wam).obs)
    z = world.noise(torch.arange(3))
    found, features = world.predict(z, SIGMA, context)

    direct = diffusers.CosmosTransformer3DModel(**world.cfg.sizes())
    direct.load_state_dict(world.transformer.state_dict())
    clip = torch.cat([context.z, z], 1).transpose(1, 2)
    n, h, w = clip.shape[2:]
    condition = torch.zeros(3, 2, n, h, w)
    condition[:, 0, 0] = 1  # given; the other channel is padding
    timestep = torch.zeros(3, 1, n, 1, 1)
    timestep[:, 0, 1:] = SIGMA[:, None, None, None]
    out = direct(clip, timestep, context.said, fps=16, condition_mask=condition).sample
    torch.testing.assert_close(found, out.transpose(1, 2)[:, 1:], rtol=0, atol=1e-6)
    assert features.shape == (3, 2, n * h * w // 4, 24)


def test_patches_of_ltx_come_back():
    clip = torch.randn(2, 3, 5, 8, 4)
    tokens = to_tokens(clip, 2)
    assert tokens.shape == (2, 3 * 4 * 2, 5 * 4)
    assert torch.equal(from_tokens(tokens, clip.shape[1:], 2), clip)
    # a token is a patch: what lies elsewhere does not change it
    other = clip.clone()
    other[:, 0, :, :2, :2] += 1
    changed = (to_tokens(other, 2) != tokens).flatten(2).any(2)
    assert changed[:, 0].all() and not changed[:, 1:].any()


def test_ltx_does_not_hear_what_an_instruction_is_filled_up_with():
    wam = built("ltx")
    context = wam.encode(probe(wam).obs)
    z = wam.world.noise(torch.arange(3))
    before = wam.world.predict(z, SIGMA, context)[0]
    silence = context.said.new_zeros(3, 5, 16)
    heard = torch.cat([context.heard, torch.zeros(3, 5, dtype=torch.bool)], 1)
    longer = replace(context, said=torch.cat([context.said, silence], 1), heard=heard)
    after = wam.world.predict(z, SIGMA, longer)[0]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_through_the_taps_are_the_same_when_recomputed(family):
    gradients = []
    for recompute in (False, True):
        wam = built(family, recompute=recompute)
        wam.features(wam.encode(probe(wam).obs), torch.arange(3)).square().sum().backward()
        gradients.append([p.grad for p in wam.world.transformer.parameters()])
    pairs = list(zip(*gradients, strict=True))
    assert any(a is not None and a.abs().max() > 0 for a, _ in pairs)
    for plain, again in pairs:
        assert (plain is None) == (again is None)
        assert plain is None or torch.allclose(plain, again, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_adapters_it_is_the_published_network_bit_for_bit(family, tmp_path):
    pytest.importorskip("peft", reason="needs pip install -e '.[lora]'")
    cfg = small(family)
    torch.manual_seed(3)
    published = getattr(diffusers, cfg.network)(**cfg.sizes())
    published.save_pretrained(tmp_path)
    wam = built(family, pretrained=str(tmp_path), lora=LoRAConfig(rank=2))
    for name, weight in wam.world.transformer.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    changed = velocity(wam)
    wanted = velocity(wam, published)
    wam.world.transformer.disable_adapters()
    assert torch.equal(velocity(wam), wanted)
    assert (changed - wanted).abs().max() > 1e-3
    names = [key for key in wam.state_dict() if "transformer" in key]
    assert names and all("lora_" in key for key in names)


def test_cosmos_as_it_is_published_has_its_padding_beside_its_channels(tmp_path):
    cfg = small("cosmos")
    torch.manual_seed(3)
    published = diffusers.CosmosTransformer3DModel(**cfg.sizes())
    published.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    said = json.loads(file.read_text()) | {"in_channels": 4, "concat_padding_mask": True}
    file.write_text(json.dumps(said))
    wam = built("cosmos", pretrained=str(tmp_path))
    assert torch.equal(velocity(wam), velocity(wam, published))
    with pytest.raises(ValueError, match="has in_channels=5, model.world says 4"):
        built("cosmos", pretrained=str(tmp_path), conditioned=False)


@pytest.mark.parametrize(
    ("recipe", "change", "parameters"),
    [
        (ltx_2b, {}, 1_923_385_472),
        (cosmos_2b, {"conditioned": False}, 1_956_405_248),  # Text2Image
        (cosmos_2b, {}, 1_956_405_248 + 2048 * 4),  # Video2World: a channel of patches more
    ],
)
def test_published_sizes(recipe, change, parameters):
    cfg = recipe().model
    cfg = replace(cfg, world=replace(cfg.world, **change))
    with torch.device("meta"):
        world = cfg.build(**ENV).world
    assert sum(p.numel() for p in world.transformer.parameters()) == parameters
    assert sharding.blocks_of(world) == list(world.blocks)
    assert len(world.blocks) == 28


def test_a_head_too_narrow_for_its_rotations_is_refused():
    with pytest.raises(ValueError, match="head_width=10 must be 12 or more"):
        model(small("cosmos", head_width=10)).validate()
