"""DINOv2 and V-JEPA2: the real classes of transformers with small random weights,
fresh and from local folders.
"""

import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from wamrl.rewards.check import check_reward
from wamrl.rewards.features import MEAN, STD, DINOv2Config, VJEPA2Config

DINO, JEPA = (
    DINOv2Config(weights=None, size=56, batch=5),
    VJEPA2Config(weights=None, size=64, batch=5),
)
both = pytest.mark.parametrize("config", [DINO, JEPA], ids=["dinov2", "vjepa2"])


def frames(seed: int, *shape: int) -> torch.Tensor:
    """float32 (*shape, 24, 32, 3), smooth."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(torch.Size(shape).numel(), 3, 6, 8, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, (24, 32), mode="bilinear")
    return smooth.permute(0, 2, 3, 1).reshape(*shape, 24, 32, 3)


A, B, LAST = frames(0, 3, 2, 2), frames(1, 3, 2, 2), frames(2, 3, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both networks as a user would have downloaded them."""
    found = {}
    for config in (DINO, JEPA):
        found[type(config)] = tmp_path_factory.mktemp(config.name)
        config.build().net.save_pretrained(found[type(config)])
    return found


# --- what is computed


@both
def test_it_keeps_the_contract(config):
    check_reward(config, shape=(3, 2, 2, 24, 32))
    assert (
        config.name.endswith("-random")
        and replace(config, weights="somewhere").name + "-random" == config.name
    )


def test_dinov2_is_the_cosine_distance_of_patches():
    """Against transformers called by hand, on frames that need no resizing."""
    similarity = DINO.build()
    a, b = (
        torch.rand(1, 1, 1, 56, 56, 3, generator=torch.Generator().manual_seed(i)) for i in (3, 4)
    )
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    with torch.no_grad():
        p, q = (
            similarity.net(((x[0, 0] - mean) / std).permute(0, 3, 1, 2)).last_hidden_state[0]
            for x in (a, b)
        )
    assert p.shape == (1 + 16, 64)  # class token, 4 x 4 patches
    expected = 1 - torch.cosine_similarity(p[1:], q[1:], dim=-1).mean()
    assert similarity.distance(a, b, a[:, 0]).item() == pytest.approx(expected.item(), rel=1e-4)


def test_vjepa2_sees_the_present_and_one_frame():
    similarity = JEPA.build()
    a, b, last = (
        torch.rand(1, 1, 1, 64, 64, 3, generator=torch.Generator().manual_seed(i))
        for i in (3, 4, 5)
    )
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    clips = [
        ((torch.cat([last[0, 0], x[0, 0]]) - mean) / std).permute(0, 3, 1, 2)[None] for x in (a, b)
    ]
    with torch.no_grad():
        p, q = (similarity.net(c, skip_predictor=True).last_hidden_state[0] for c in clips)
    assert p.shape == (16, 64)  # one tubelet of 4 x 4 patches
    expected = 1 - torch.cosine_similarity(p, q, dim=-1).mean()
    assert similarity.distance(a, b, last[:, 0]).item() == pytest.approx(expected.item(), rel=1e-4)


def test_only_video_looks_at_the_frame_before():
    for config, looks in ((DINO, False), (JEPA, True)):
        similarity = config.build()
        same = torch.equal(similarity.distance(A, B, LAST), similarity.distance(A, B, 1 - LAST))
        assert same is not looks


@both
def test_nearer_frames_are_nearer(config):
    similarity = config.build()
    d = [similarity.distance(A + step * (B - A), A, LAST) for step in (0.1, 0.4, 1.0)]
    assert (d[0] > 0).all() and (d[0] < d[1]).all() and (d[1] < d[2]).all()


@both
def test_batches_and_mixed_precision_change_nothing(config):
    expected = config.build().distance(A, B, LAST)
    for batch in (1, 64):
        assert torch.allclose(
            replace(config, batch=batch).build().distance(A, B, LAST), expected, atol=1e-5
        )
    with torch.autocast("cpu", torch.bfloat16):
        got = config.build().distance(A, B, LAST)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


@both
def test_the_random_network_is_a_function_of_its_seed(config):
    state = torch.get_rng_state()
    one, other = (replace(config, seed=seed).build().distance(A, B, LAST) for seed in (0, 1))
    assert torch.equal(torch.get_rng_state(), state) and not torch.allclose(one, other)


@both
def test_nothing_trains(config):
    net = config.build().net
    assert not net.training and not any(p.requires_grad for p in net.parameters())


# --- weights


@both
def test_a_local_folder_gives_the_same_distances(config, folders):
    local = replace(config, weights=str(folders[type(config)]))
    check_reward(local, shape=(2, 2, 1, 24, 32))
    assert torch.equal(local.build().distance(A, B, LAST), config.build().distance(A, B, LAST))


def test_vjepa2_at_another_size_counts_its_positions_on_that_grid(folders):
    net = replace(JEPA, weights=str(folders[VJEPA2Config]), size=96).build().net
    assert net.config.crop_size == 96 and net.encoder.layer[0].attention.grid_size == 6


@both
def test_sizes_that_do_not_divide_are_refused(config):
    with pytest.raises(ValueError, match="choose a multiple of"):
        replace(config, size=50).build()
    with pytest.raises(ValueError, match="batch=0"):
        replace(config, batch=0).build()


@both
def test_no_network_is_one_sentence(config, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match="nobody/nothing is not in the local cache.*: give a local folder"
    ) as caught:
        replace(config, weights="nobody/nothing").build()
    assert "\n" not in str(caught.value)


@both
def test_a_hub_that_does_not_answer_is_not_asked_again(config, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # nobody listens
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the hub gives nothing .*refused.*: give a local folder"):
        replace(config, weights="nobody/nothing").build()
    assert not [r for r in caplog.records if "Retrying" in r.message]


@both
def test_a_folder_with_something_else_is_refused(config, folders, tmp_path):
    (other,) = (folder for kind, folder in folders.items() if kind is not type(config))
    for folder, reason in ((tmp_path, "no config.json"), (other, "model_type in config.json")):
        with pytest.raises(
            ValueError,
            match=f"{reason}.*: give a local folder with config.json and model.safetensors",
        ):
            replace(config, weights=str(folder)).build()


@both
def test_damaged_missing_and_pickled_weights_are_refused(config, folders, tmp_path):
    source = folders[type(config)]
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    local, file = replace(config, weights=str(tmp_path)), tmp_path / "model.safetensors"
    state = load_file(source / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded from that folder"):
        local.build()
    file.write_bytes((source / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded from that folder"):
        local.build()
    gone = next(key for key in state if "layer.1" in key and not key.startswith("predictor"))
    save_file({k: v for k, v in state.items() if k != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights such as .*layer.1"):
        local.build()
    wrong = json.loads((source / "config.json").read_text()) | {"hidden_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="give a local folder"):
        local.build()


@both
def test_missing_transformers_name_the_extra(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[rewards\]'"):
        config.build()
