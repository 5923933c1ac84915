"""Adapters on Wan's network: the published weights stay, are shared, and are in no checkpoint."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.small_wan import build, tiny
from wamrl.models.check import check_wam, probe
from wamrl.models.lora import LoRAConfig, export_merged, frozen_weights
from wamrl.models.saved import load_model, save_wam
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.wan import wan22_5b, wan_point
from wamrl.rl.world_update import frozen_copy
from wamrl.sft import SFT, SFTConfig

diffusers = pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusers]'")
pytest.importorskip("peft", reason="needs pip install -e '.[lora]'")
torch.set_num_threads(1)
LORA = LoRAConfig(rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What stands for a published transformer."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("wan")
    diffusers.WanTransformer3DModel(**tiny().world.sizes()).save_pretrained(path)
    return path


def config(folder: Path, **world) -> WAMConfig:
    return tiny(pretrained=str(folder), lora=LORA, **world)


def learned(folder: Path) -> WAM:
    """Adapters that change something, as after training."""
    wam = build(config(folder))
    g = torch.Generator().manual_seed(0)
    for name, p in wam.world.transformer.named_parameters():
        if "lora_B" in name:
            p.data.normal_(0, 0.3, generator=g)
    return wam


def velocity(wam: WAM, network: torch.nn.Module | None = None) -> torch.Tensor:
    """Of the world model on the probe, by another network where one is given."""
    wam = copy.copy(wam)
    context = wam.encode(probe(wam).obs)
    z = wam.world.noise(torch.arange(3))
    if network is not None:
        world = copy.deepcopy(wam.world)
        world.transformer = network
        return world.predict(z, torch.full((3,), 0.6), context)[0]
    return wam.world.predict(z, torch.full((3,), 0.6), context)[0]


def test_it_keeps_the_contract(folder):
    check_wam(learned(folder))


def test_without_its_adapters_it_is_the_published_network_bit_for_bit(folder):
    published = diffusers.WanTransformer3DModel.from_pretrained(folder)
    wam = learned(folder)
    with_adapters = velocity(wam)
    wanted = velocity(wam, published)
    wam.world.transformer.disable_adapters()
    assert torch.equal(velocity(wam), wanted)
    assert (with_adapters - wanted).abs().max() > 1e-3
    wam.world.transformer.enable_adapters()
    assert torch.equal(velocity(wam), with_adapters)


def test_a_fresh_adapter_changes_nothing(folder):
    published = diffusers.WanTransformer3DModel.from_pretrained(folder)
    wam = build(config(folder))
    assert torch.equal(velocity(wam), velocity(wam, published))


def test_copies_share_what_never_learns(folder):
    wam = learned(folder)
    frozen = frozen_copy(wam)
    average = SFT(wam, SFTConfig(), seed=0).average
    mine = dict(wam.world.transformer.named_parameters())
    shared = {name for name, _ in frozen_weights(wam.world.transformer)}
    assert any("lora_" in name for name in mine) and not any("lora_" in name for name in shared)
    for other in (frozen, average):
        for name, weight in other.world.transformer.named_parameters():
            assert (weight is mine[name]) == (name in shared), name
        assert torch.equal(velocity(other), velocity(wam))


def test_training_moves_the_adapters_only(folder):
    wam = learned(folder)
    clip = probe(wam)
    before = {name: p.clone() for name, p in wam.world.transformer.named_parameters()}
    state = SFT(wam, SFTConfig(batch=3, warmup=0), seed=0)
    reference = frozen_copy(wam)
    old = velocity(reference)
    for _ in range(2):
        state.step(lambda batch, generator, rows: clip[rows])
    for name, p in wam.world.transformer.named_parameters():
        assert torch.equal(p, before[name]) == ("lora_" not in name), name
    assert torch.equal(velocity(reference), old)
    moments = state.optimizer.state_dict()["state"]
    assert len(moments) == sum(p.requires_grad for p in wam.parameters())


def test_a_checkpoint_holds_adapters_only_and_comes_back(folder, tmp_path):
    (tmp_path / "published").mkdir()
    for file in folder.iterdir():
        (tmp_path / "published" / file.name).write_bytes(file.read_bytes())
    cfg = config(tmp_path / "published")
    env = wan_point().env.build().spec
    torch.manual_seed(0)
    wam = cfg.build(views=1, image_hw=env.image_hw, action_dim=2, proprio_dim=4, bounds=env.bounds)
    for p in wam.world.transformer.parameters():
        if p.requires_grad:
            p.data.add_(0.1)
    names = [key for key in wam.state_dict() if "transformer" in key]
    assert names and all("lora_" in key for key in names)
    saved = save_wam(cfg, env, wam, tmp_path, "base")
    loaded = load_model(saved).wam
    assert torch.equal(velocity(loaded), velocity(wam))

    torch.manual_seed(4)
    other = diffusers.WanTransformer3DModel(**cfg.world.sizes())
    other.save_pretrained(tmp_path / "published")
    with pytest.raises(ValueError, match="other weights below its adapters"):
        load_model(saved)


def test_a_checkpoint_without_adapters_does_not_load(folder):
    wam = learned(folder)
    state = {key: value for key, value in wam.state_dict().items() if "lora_A" not in key}
    with pytest.raises(RuntimeError, match="Missing key.*lora_A"):
        wam.load_state_dict(state)


def test_merged_weights_are_those_with_adapters(folder, tmp_path):
    wam = learned(folder)
    export_merged(wam.world.transformer, tmp_path)
    merged = diffusers.WanTransformer3DModel.from_pretrained(tmp_path)
    torch.testing.assert_close(velocity(wam, merged), velocity(wam), rtol=0, atol=1e-5)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["num_layers"] == 2


def test_the_checkpoint_of_five_billion_weights():
    cfg = wan22_5b().model
    world = replace(cfg.world, lora=LoRAConfig(rank=16))
    with torch.device("meta"):
        wam = replace(cfg, world=world).build(
            views=1, image_hw=(128, 128), action_dim=4, proprio_dim=8
        )
    of_network = {k: v for k, v in wam.state_dict().items() if "transformer" in k}
    assert all("lora_" in key for key in of_network)
    assert sum(v.numel() for v in of_network.values()) == 23_592_960
    # 94.4 MB of adapters; the rest embeds instruction and robot state
    assert sum(v.nbytes for v in wam.world.state_dict().values()) < 102e6


def test_adapters_need_published_weights_and_names_that_are_there(folder):
    with pytest.raises(ValueError, match="give the folder of a transformer"):
        build(tiny(lora=LORA))
    with pytest.raises(ValueError, match="name layers, or set rank 0"):
        tiny(lora=LoRAConfig(rank=2, layers=())).validate()
    with pytest.raises(ValueError, match="model.world.lora: Target modules .*nowhere.* not found"):
        build(tiny(pretrained=str(folder), lora=LoRAConfig(rank=2, layers=("nowhere",))))
