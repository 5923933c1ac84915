"""Wan of diffusers as a world model: the same numbers as the library, nothing dropped or copied."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.small_wan import build, tiny
from wamrl.models.base import WAMSpec
from wamrl.models.check import check_wam, probe
from wamrl.models.flow import time_grid
from wamrl.models.latent import VAEConfig
from wamrl.models.saved import load_model, save_wam
from wamrl.models.wan import Wan, WanConfig
from wamrl.recipes.wan import wan21_1b, wan22_5b, wan_point
from wamrl.rl.world_update import frozen_copy
from wamrl.runtime import sharding
from wamrl.sft import SFT, SFTConfig

diffusers = pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusers]'")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> VAEConfig:
    """A random Wan VAE in a folder: 4 x 4 pixels and 4 frames a latent, whose mean is not 0."""
    torch.manual_seed(1)
    model = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=3,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.5, -0.5, 0.1],
        latents_std=[0.5, 2.0, 1.5],
    )
    folder = tmp_path_factory.mktemp("wan-vae")
    model.save_pretrained(folder)
    return VAEConfig(folder=str(folder), channels=3, group=4, cell=4)


@pytest.fixture(scope="module")
def ltx(tmp_path_factory) -> VAEConfig:
    """The same of LTX: 8 frames a latent, and noise levels that its decoder is told."""
    torch.manual_seed(2)
    model = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False,) * 4,
        upsample_residual=(False,) * 3,
        upsample_factor=(1, 1, 1),
        timestep_conditioning=True,
        patch_size=1,
        scaling_factor=0.5,
    )
    model.latents_mean.fill_(0.3)
    model.latents_std.fill_(2.0)
    folder = tmp_path_factory.mktemp("ltx-vae")
    model.save_pretrained(folder)
    return VAEConfig(folder=str(folder), channels=4, group=8, cell=8)


def edited(cfg: VAEConfig, to: Path, **config) -> VAEConfig:
    """The VAE's folder again, with other words in its config.json."""
    source = Path(cfg.folder)
    for file in source.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    said = json.loads((source / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(said))
    return replace(cfg, folder=str(to))


def test_it_keeps_the_contract_where_features_are_partly_denoised():
    check_wam(build(tiny(feature_sigma=0.5), views=2))


def test_it_keeps_the_contract_behind_a_vae(vae):
    check_wam(build(tiny(vae, patch=2), views=2))


def test_the_recipe_keeps_the_contract():
    cfg = wan_point()
    env = cfg.env.build().spec
    torch.manual_seed(0)
    check_wam(cfg.model.build(views=1, image_hw=env.image_hw, action_dim=2, proprio_dim=4))


def test_the_velocity_is_that_of_the_librarys_class(vae):
    wam = build(tiny(vae))
    world = wam.world
    clip = probe(wam)
    context = wam.encode(clip.obs)
    z = world.noise(torch.arange(3))
    sigma = torch.tensor([1.0, 0.4, 0.7])
    velocity, features = world.predict(z, sigma, context)

    direct = diffusers.WanTransformer3DModel(**wam.world.cfg.sizes())
    direct.load_state_dict(world.transformer.state_dict())
    frames = torch.cat([context.z, z], 1).transpose(1, 2)
    tokens = frames.shape[3] // 2 * (frames.shape[4] // 2)
    timestep = torch.zeros(3, frames.shape[2] * tokens)
    timestep[:, tokens:] = 1000 * sigma[:, None]
    out = direct(frames, timestep, context.said).sample.transpose(1, 2)
    torch.testing.assert_close(velocity, out[:, 1:], rtol=0, atol=1e-6)
    assert features.shape == (3, 2, timestep.shape[1], 24)


def test_one_noise_level_for_all_tokens_is_another_velocity():
    """So the past really stands at sigma 0."""
    wam = build(tiny())
    context = wam.encode(probe(wam).obs)
    z = wam.world.noise(torch.arange(3))
    velocity, _ = wam.world.predict(z, torch.full((3,), 0.5), context)
    frames = torch.cat([context.z, z], 1).transpose(1, 2)
    same = wam.world.transformer(frames, torch.full((3,), 500.0), context.said).sample
    assert (velocity - same.transpose(1, 2)[:, 1:]).abs().max() > 1e-4


def test_a_fresh_network_looks_near_first():
    """From the library's own start, what is far in the past counts as much as what is near."""
    world = build(tiny()).world
    clip = probe(build(tiny()))
    context = world.encode(clip.obs)
    z = world.noise(torch.arange(3))
    sigma = torch.ones(3)
    still, _ = world.predict(z, sigma, context)
    past = context.z.clone()
    past[..., :2, :2] += 5.0  # the token in a corner
    moved, _ = world.predict(z, sigma, replace(context, z=past))
    change = (moved - still).abs().mean((0, 1, 2))
    assert change[:2, :2].mean() > 3 * change[-2:, -2:].mean()


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_the_time_grid_is_the_librarys(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=time_grid(6)[:-1].tolist())
    torch.testing.assert_close(scheduler.sigmas, time_grid(6, shift), rtol=0, atol=1e-6)


def test_imagining_is_the_librarys_sampler(vae):
    wam = build(tiny(vae, shift=3.0))
    world = wam.world
    context = wam.encode(probe(wam).obs)
    seeds = torch.arange(3)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=time_grid(4)[:-1].tolist())
    z = world.noise(seeds)
    for t in scheduler.timesteps:
        velocity, _ = world.predict(z, (t / 1000).expand(3), context)
        z = scheduler.step(velocity, t, z).prev_sample
    frames = world.imagine(context, seeds, 4)
    torch.testing.assert_close(frames, world.to_frames(z, context), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vae", "ltx"])
def test_latents_are_the_librarys_with_mean_and_deviation(kind, request):
    cfg = request.getfixturevalue(kind)
    views = 2
    frames = torch.randint(0, 256, (2, cfg.group + 1, views, 16, 8, 3), dtype=torch.uint8)
    latents = cfg.build()
    z = latents.encode(frames)
    wide = torch.cat([frames[:, :, 0], frames[:, :, 1]], 3)  # side by side
    x = wide.float().permute(0, 4, 1, 2, 3) / 127.5 - 1
    library = latents.vae
    raw = library.encode(x).latent_dist.mean
    if kind == "vae":
        mean, std = torch.tensor([0.5, -0.5, 0.1]), torch.tensor([0.5, 2.0, 1.5])
    else:
        mean, std = torch.full((4,), 0.3), torch.full((4,), 2.0 / 0.5)
    wanted = (raw - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    torch.testing.assert_close(z, wanted.transpose(1, 2), rtol=0, atol=1e-5)
    assert z.shape[1:] == latents.shape(cfg.group + 1, views, (16, 8))

    more = [] if kind == "vae" else [torch.zeros(2)]
    decoded = ((library.decode(raw, *more).sample + 1) / 2).clamp(0, 1)
    back = latents.decode(z, views).permute(0, 5, 1, 3, 2, 4).flatten(4)
    torch.testing.assert_close(back, decoded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vae", "ltx"])
def test_the_past_alone_has_the_latents_that_it_has_in_the_clip(kind, request):
    cfg = request.getfixturevalue(kind)
    frames = torch.randint(0, 256, (1, cfg.group + 1, 1, 16, 8, 3), dtype=torch.uint8)
    latents = cfg.build()
    torch.testing.assert_close(
        latents.encode(frames[:, :1]), latents.encode(frames)[:, :1], rtol=0, atol=1e-5
    )


def test_frames_are_decoded_after_their_past(vae):
    wam = build(tiny(vae))
    clip = probe(wam)
    context = wam.encode(clip.obs)
    latents = wam.world.latents
    whole = torch.cat([clip.frames, clip.future], 1)
    z = wam.world.to_latents(clip.future, context)
    torch.testing.assert_close(z, latents.encode(whole)[:, 1:])
    frames = wam.world.to_frames(z, context)
    wanted = latents.decode(latents.encode(whole), 1)[:, 1:]
    torch.testing.assert_close(frames, wanted, rtol=0, atol=1e-6)
    alone = latents.decode(z, 1)  # one frame of the first latent, and not the right ones
    assert alone.shape[1] == 1
    assert (alone[:, 0] - frames[:, 3]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frame_offsets": (2, 4, 6)}, "a clip of 4 frames has no latents: this VAE needs 4 n . 1"),
        ({"history_offsets": (-2, 0)}, "a clip of 2 frames has no latents"),
    ],
)
def test_frames_that_would_be_dropped_are_refused(vae, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(replace(tiny(vae), **change))


def test_a_clip_of_another_form_is_refused(vae):
    with pytest.raises(ValueError, match="a clip of 4 frames has no latents"):
        vae.build().encode(torch.zeros(1, 4, 1, 16, 8, 3, dtype=torch.uint8))


def test_a_latent_counts_where_all_its_frames_are_real(vae):
    wam = build(tiny(vae, frames=8))
    mask = torch.tensor([[True] * 8, [True] * 7 + [False], [False] * 8])
    wanted = torch.tensor([[True, True], [True, False], [False, False]])
    assert torch.equal(wam.world.latent_mask(mask), wanted)


def test_the_vae_is_shared_not_saved_and_not_trained(vae):
    wam = build(tiny(vae))
    frozen = frozen_copy(wam)
    state = SFT(wam, SFTConfig(), seed=0)
    own = wam.world.latents.vae
    assert frozen.world.latents.vae is own and state.average.world.latents.vae is own
    weights = {id(p) for p in own.parameters()}
    trained = state.optimizer.parameters
    assert not weights & {id(p) for p in trained}
    assert not any(p.requires_grad for p in own.parameters())
    count = sum(value.numel() for value in wam.state_dict().values())
    assert count == sum(p.numel() for p in wam.parameters()) + sum(
        b.numel() for b in wam.buffers() if b.shape[:1] != (1024,)
    )
    assert not any("vae" in key or "encoder.conv" in key for key in wam.state_dict())


def test_a_copy_taps_its_own_blocks():
    wam = build(tiny())
    other = copy.deepcopy(wam)
    for p in other.world.parameters():
        p.data.mul_(1.5)
    obs = probe(wam).obs
    seeds = torch.arange(3)
    before = wam.features(wam.encode(obs), seeds)
    theirs = other.features(other.encode(obs), seeds)
    assert (theirs - before).abs().max() > 1e-3
    assert torch.equal(wam.features(wam.encode(obs), seeds), before)
    hooks = [len(m._forward_hooks) for m in wam.world.modules()]
    assert not any(hooks)


def test_gradients_through_the_taps_are_the_same_when_recomputed():
    gradients = []
    for recompute in (False, True):
        wam = build(tiny(recompute=recompute))
        wam.features(wam.encode(probe(wam).obs), torch.arange(3)).square().sum().backward()
        gradients.append([p.grad for p in wam.world.transformer.parameters()])
    pairs = list(zip(*gradients, strict=True))
    assert any(a is not None and a.abs().max() > 0 for a, _ in pairs)
    for plain, again in pairs:
        assert (plain is None) == (again is None)
        assert plain is None or torch.allclose(plain, again, atol=1e-6)


def test_a_saved_model_comes_back_with_its_vae_only(vae, tmp_path):
    (tmp_path / "vae").mkdir()
    mine = edited(vae, tmp_path / "vae")
    env = wan_point().env.build().spec
    cfg = tiny(mine)
    torch.manual_seed(0)
    wam = cfg.build(views=1, image_hw=env.image_hw, action_dim=2, proprio_dim=4, bounds=env.bounds)
    folder = save_wam(cfg, env, wam, tmp_path, "base")
    loaded = load_model(folder).wam
    obs = probe(wam).obs
    seeds = torch.arange(3)
    assert torch.equal(loaded.imagine(obs, seeds), wam.imagine(obs, seeds))

    edited(vae, tmp_path / "vae", latents_mean=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="trained with another VAE"):
        load_model(folder)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"_class_name": "Anything"}, "holds a Anything: give the folder of a VAE"),
        ({"z_dim": 4}, "has channels=4, not 3: set --model.world.latent.channels 4"),
        ({"temperal_downsample": [False, True]}, "does not make one latent of 4 frames"),
        ({"dim_mult": None}, "does not say its shape"),
        ({"base_dim": 8}, "cannot be read as a AutoencoderKLWan|is no whole AutoencoderKLWan"),
    ],
)
def test_another_vae_than_was_promised_is_refused(vae, tmp_path, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        edited(vae, tmp_path, **config).build()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"encoder_causal": False}, "lets the future into the latents of the past"),
        ({"decoder_inject_noise": [True] * 4}, "decodes with noise of its own"),
        ({"patch_size_t": 2}, "has group=16, not 8"),
    ],
)
def test_of_ltx_too(ltx, tmp_path, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        edited(ltx, tmp_path, **config).build()


def test_a_folder_without_safetensors_is_refused(vae, tmp_path):
    other = edited(vae, tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match="holds no .*safetensors, and nothing else is read"):
        other.build()
    with pytest.raises(ValueError, match="comes from a local folder: give the folder of a VAE"):
        VAEConfig().build()
    with pytest.raises(ValueError, match="has no readable config.json"):
        replace(vae, folder="org/a-model-of-the-hub").build()


def test_a_transformer_comes_from_its_folder(tmp_path):
    cfg = tiny()
    torch.manual_seed(3)
    published = diffusers.WanTransformer3DModel(**cfg.world.sizes())
    published.save_pretrained(tmp_path)
    wam = build(tiny(pretrained=str(tmp_path)))
    for key, value in published.state_dict().items():
        assert torch.equal(wam.world.transformer.state_dict()[key], value), key
    with pytest.raises(ValueError, match="has num_layers=2, model.world says 3"):
        build(tiny(pretrained=str(tmp_path), depth=3))


def test_instructions_that_were_embedded_before(tmp_path):
    file = tmp_path / "text.safetensors"
    save_file({"probe": torch.randn(5, 16), "other": torch.randn(5, 16)}, file)
    wam = build(tiny(text=str(file)))
    obs = probe(wam).obs
    check_wam(wam)
    assert not any("text" in key for key in wam.world.state_dict() if "transformer" not in key)
    features = wam.features(wam.encode(obs), torch.arange(3))
    said = replace(obs, text=("other",) * 3)
    assert (wam.features(wam.encode(said), torch.arange(3)) - features).abs().max() > 1e-5
    with pytest.raises(ValueError, match="no embedding of 'unheard'"):
        wam.encode(replace(obs, text=("probe", "unheard", "probe")))
    with pytest.raises(ValueError, match=r"must hold one \(L, 32\) per instruction"):
        build(tiny(text=str(file), text_width=32))


@pytest.mark.parametrize(
    ("recipe", "parameters"), [(wan21_1b, 1_418_996_800), (wan22_5b, 4_999_787_712)]
)
def test_published_sizes(recipe, parameters):
    cfg = recipe()
    env = {"views": 1, "image_hw": (128, 128), "action_dim": 4, "proprio_dim": 8}
    with torch.device("meta"):
        world = cfg.model.build(**env).world
    assert isinstance(world, Wan)
    assert sum(p.numel() for p in world.transformer.parameters()) == parameters
    rest = sum(p.numel() for p in world.parameters()) - parameters
    assert rest < 0.01 * parameters


def test_only_whole_blocks_are_sharded():
    """Not the small lists within a block, one of whose entries has no weights at all."""
    world = build(tiny()).world
    assert sharding.blocks_of(world) == list(world.transformer.blocks)


def test_a_number_out_of_range_is_refused():
    for change, sentence in [
        ({"taps": (2, 1)}, "name blocks of 1..2, ascending"),
        ({"taps": (3,)}, "name blocks of 1..2"),
        ({"head_width": 13}, "head_width=13 must be even"),
        ({"shift": 0.0}, "model.world.shift=0.0 is not possible"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            tiny(**change).validate()
    with pytest.raises(ValueError, match="patches of 3 do not divide"):
        build(tiny(patch=3))
    spec = WAMSpec(
        views=1,
        image_hw=(10, 8),
        history_offsets=(0,),
        frame_offsets=(1, 2, 3, 4),
        chunk=4,
        action_dim=1,
        proprio_dim=1,
        taps=("block1",),
        feature_sigma=1.0,
    )
    with torch.device("meta"), pytest.raises(ValueError, match="no whole number of the VAE's 8 x"):
        WanConfig(taps=(1,), depth=1).build(spec)


def test_the_present_is_the_last_latent_of_the_past():
    """8 tokens a latent, of two past and four future ones."""
    cfg = replace(tiny(patch=4), history_offsets=(-2, 0))
    wam = build(cfg)
    obs = probe(wam).obs
    features = wam.features(wam.encode(obs), torch.arange(3))
    tokens = range(features.shape[2])
    cells = 16 * 8 // 4**2
    assert len(tokens) == 6 * cells
    assert tokens[wam.world.present] == range(cells, 2 * cells)
