"""Published checkpoints by our names: every key finds its place or is named.

The names and shapes below are those of the published code at its published sizes.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from wamrl.models.key_maps import FAST_WAM, GE_ACT, LINGBOT_VA, convert, mapped

diffusers = pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusers]'")
torch.set_num_threads(1)
WAN22 = {"width": 3072, "hidden": 14336, "channels": 48, "layers": 30, "text": 4096, "time": 256}
TINY = {"width": 24, "hidden": 32, "channels": 3, "layers": 2, "text": 16, "time": 16}


class Names(dict):
    """A state dict in the making."""

    def linear(self, name: str, out: int, into: int) -> None:
        self[f"{name}.weight"] = torch.empty(out, into)
        self[f"{name}.bias"] = torch.empty(out)

    def put(self, name: str, *shape: int) -> None:
        self[name] = torch.empty(shape)


def wan_network(size: dict):
    heads = 24 if size is WAN22 else 2
    return diffusers.WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=size["width"] // heads,
        in_channels=size["channels"],
        out_channels=size["channels"],
        text_dim=size["text"],
        freq_dim=size["time"],
        ffn_dim=size["hidden"],
        num_layers=size["layers"],
    )


def fast_wam(size: dict) -> Names:
    """`FastWAM.mot`: src/fastwam/models/wan22 (wan_video_dit.py, mot.py)."""
    found = Names()
    width = size["width"]
    video = "mixtures.video."
    found.put(f"{video}patch_embedding.weight", width, size["channels"], 1, 2, 2)
    found.put(f"{video}patch_embedding.bias", width)
    found.linear(f"{video}text_embedding.0", width, size["text"])
    found.linear(f"{video}text_embedding.2", width, width)
    found.linear(f"{video}time_embedding.0", width, size["time"])
    found.linear(f"{video}time_embedding.2", width, width)
    found.linear(f"{video}time_projection.1", 6 * width, width)
    for i in range(size["layers"]):
        block = f"{video}blocks.{i}."
        for attention in ("self_attn", "cross_attn"):
            for layer in "qkvo":
                found.linear(f"{block}{attention}.{layer}", width, width)
            for norm in ("norm_q", "norm_k"):
                found.put(f"{block}{attention}.{norm}.weight", width)
        found.put(f"{block}norm3.weight", width)
        found.put(f"{block}norm3.bias", width)
        found.linear(f"{block}ffn.0", size["hidden"], width)
        found.linear(f"{block}ffn.2", width, size["hidden"])
        found.put(f"{block}modulation", 1, 6, width)
    found.linear(f"{video}head.head", 4 * size["channels"], width)
    found.put(f"{video}head.modulation", 1, 2, width)
    found.linear("mixtures.action.action_encoder", 1024, 7)
    found.linear("mixtures.action.blocks.0.self_attn.q", width, 1024)
    found.linear("mixtures.action.head", 7, 1024)
    return found


def lingbot_va(size: dict) -> Names:
    """`WanTransformer3DModel` of wan_va/modules/model.py."""
    found = Names()
    width = size["width"]
    found.linear("patch_embedding_mlp", width, 4 * size["channels"])
    found.linear("action_embedder", width, 30)
    for embedder in ("condition_embedder", "condition_embedder_action"):
        found.linear(f"{embedder}.time_embedder.linear_1", width, size["time"])
        found.linear(f"{embedder}.time_embedder.linear_2", width, width)
        found.linear(f"{embedder}.time_proj", 6 * width, width)
        found.linear(f"{embedder}.text_embedder.linear_1", width, size["text"])
        found.linear(f"{embedder}.text_embedder.linear_2", width, width)
    for i in range(size["layers"]):
        block = f"blocks.{i}."
        for attention in ("attn1", "attn2"):
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                found.linear(f"{block}{attention}.{layer}", width, width)
            for norm in ("norm_q", "norm_k"):
                found.put(f"{block}{attention}.{norm}.weight", width)
        found.put(f"{block}norm2.weight", width)
        found.put(f"{block}norm2.bias", width)
        found.linear(f"{block}ffn.net.0.proj", size["hidden"], width)
        found.linear(f"{block}ffn.net.2", width, size["hidden"])
        found.put(f"{block}scale_shift_table", 1, 6, width)
    found.linear("proj_out", 4 * size["channels"], width)
    found.linear("action_proj_out", 30, width)
    found.put("scale_shift_table", 1, 2, width)
    return found


def ge_act() -> Names:
    """`LTXVideoTransformer3DModel` of models/ltx_models/transformer_ltx_multiview.py."""
    found = Names()
    width = 2048
    found.linear("proj_in", width, 128)
    found.put("scale_shift_table", 2, width)
    found.linear("time_embed.emb.timestep_embedder.linear_1", width, 256)
    found.linear("time_embed.emb.timestep_embedder.linear_2", width, width)
    found.linear("time_embed.linear", 6 * width, width)
    found.put("view_embed", 3, width)
    found.linear("view_ada.1", 6 * width, width)
    found.linear("caption_projection.linear_1", width, 4096)
    found.linear("caption_projection.linear_2", width, width)
    for i in range(28):
        block = f"transformer_blocks.{i}."
        for attention in ("attn1", "attn2"):
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                found.linear(f"{block}{attention}.{layer}", width, width)
            for norm in ("norm_q", "norm_k"):
                found.put(f"{block}{attention}.{norm}.weight", width)
        found.linear(f"{block}ff.net.0.proj", 4 * width, width)
        found.linear(f"{block}ff.net.2", width, 4 * width)
        found.put(f"{block}scale_shift_table", 6, width)
    found.linear("proj_out", 128, width)
    found.linear("action_proj_in", 512, 14)
    found.linear("action_blocks.0.attn1.to_q", 512, 512)
    found.linear("action_proj_out", 14, 512)
    return found


def numbers(state) -> int:
    return sum(value.numel() for value in state.values())


def test_fast_wam_is_wan_by_its_own_names():
    with torch.device("meta"):
        network = wan_network(WAN22)
        found = mapped(FAST_WAM, fast_wam(WAN22), network)
    assert found.whole and not found.reshaped
    assert numbers(found.state) == 4_999_787_712
    assert len(found.unexpected) == 6
    assert all(key.startswith("mixtures.action.") for key in found.unexpected)


def test_lingbot_va_is_wan_with_linear_patches():
    with torch.device("meta"):
        network = wan_network(WAN22)
        found = mapped(LINGBOT_VA, lingbot_va(WAN22), network)
    assert found.whole and found.reshaped == ("patch_embedding.weight",)
    assert numbers(found.state) == 4_999_787_712
    assert len(found.unexpected) == 4 + 10
    assert all("action" in key for key in found.unexpected)


def test_ge_act_is_ltx_and_more():
    with torch.device("meta"):
        network = diffusers.LTXVideoTransformer3DModel()
        found = mapped(GE_ACT, ge_act(), network)
    assert found.whole and not found.reshaped
    assert numbers(found.state) == 1_923_385_472
    assert set(found.unexpected) == {
        "view_embed",
        *(f"view_ada.1.{kind}" for kind in ("weight", "bias")),
        *(f"action_proj_in.{kind}" for kind in ("weight", "bias")),
        *(f"action_blocks.0.attn1.to_q.{kind}" for kind in ("weight", "bias")),
        *(f"action_proj_out.{kind}" for kind in ("weight", "bias")),
    }


def test_what_is_missing_or_of_another_shape_is_named():
    network = wan_network(TINY)
    published = lingbot_va(TINY)
    del published["blocks.1.attn1.to_q.bias"]
    published["proj_out.weight"] = torch.empty(5, 24)
    published["patch_embedding_mlp.weight"] = torch.empty(24, 13)
    found = mapped(LINGBOT_VA, published, network)
    assert found.missing == ("blocks.1.attn1.to_q.bias",)
    assert set(found.misfits) == {"proj_out.weight", "patch_embedding.weight"}
    assert "missing: blocks.1.attn1.to_q.bias" in found.told()
    with pytest.raises(ValueError, match="has the names of a LTXVideo.*, not of a WanTransformer"):
        mapped(GE_ACT, published, network)


def test_a_linear_layer_on_patches_is_the_convolution():
    """So reshaping is all that it takes: channels come first, then the patch's rows."""
    g = torch.Generator().manual_seed(0)
    network = wan_network(TINY)
    published = lingbot_va(TINY)
    weight = torch.randn(24, 12, generator=g)
    published["patch_embedding_mlp.weight"] = weight
    found = mapped(LINGBOT_VA, published, network).state["patch_embedding.weight"]
    x = torch.randn(1, 3, 2, 4, 6, generator=g)
    patches = x.view(1, 3, 2, 2, 2, 3, 2).permute(0, 2, 3, 5, 1, 4, 6).reshape(1, 12, 12)
    wanted = torch.nn.functional.conv3d(x, found, stride=(1, 2, 2)).flatten(2).mT
    torch.testing.assert_close(patches @ weight.T, wanted)


def test_a_checkpoint_becomes_a_folder_that_is_read(tmp_path):
    torch.manual_seed(0)
    published = {key: torch.randn_like(value) for key, value in fast_wam(TINY).items()}
    save_file(published, tmp_path / "one.safetensors")
    found = convert(FAST_WAM, [tmp_path / "one.safetensors"], wan_network(TINY), tmp_path / "ours")
    assert found.whole
    read = diffusers.WanTransformer3DModel.from_pretrained(tmp_path / "ours").state_dict()
    theirs = published["mixtures.video.blocks.1.cross_attn.o.weight"]
    assert torch.equal(read["blocks.1.attn2.to_out.0.weight"], theirs)
    del published["mixtures.video.head.modulation"]
    save_file(published, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="lacks 1 weights .*scale_shift_table"):
        convert(FAST_WAM, [tmp_path / "two.safetensors"], wan_network(TINY), tmp_path / "no")
    assert not (tmp_path / "no").exists()
