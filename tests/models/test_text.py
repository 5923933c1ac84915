"""Instructions as a real text encoder reads them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.command_line import refused, wamrl
from wamrl.models.saved import build_wam, load_wam, save_wam
from wamrl.models.text import EmbeddedText, TextFile, embed
from wamrl.recipes.suites import two_goals
from wamrl.runs.demonstrations import env_spec

pytest.importorskip("transformers", reason="needs pip install -e '.[rewards]'")
from tests.support.text_encoders import save_encoder  # noqa: E402

WORDS = ["bring", "the", "blue", "disc", "to", "green", "red", "goal", "and", "stop", "there"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("t5"), "t5", WORDS)


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_it_is_what_the_library_says_and_padding_changes_nothing(tmp_path, kind):
    import transformers

    folder = save_encoder(tmp_path, kind, WORDS)
    table = embed(["the red goal", "stop"], str(folder))
    assert {tuple(v.shape) for v in table.values()} == {(3, 16)}
    assert not table["stop"][1:].any()
    names = {"t5": "T5EncoderModel", "clip": "CLIPTextModel"}
    model = getattr(transformers, names[kind]).from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)("stop", return_tensors="pt")
    with torch.no_grad():
        alone = model(input_ids=tokens.input_ids).last_hidden_state[0]
    assert torch.allclose(table["stop"][:1], alone, atol=1e-5)


def test_the_tokenizer_may_lie_beside_and_rows_can_be_filled_up(tmp_path):
    folder = save_encoder(tmp_path / "text_encoder", "t5", WORDS)
    known = embed(["stop"], str(folder))
    (tmp_path / "tokenizer").mkdir()
    for file in folder.glob("token*"):
        file.rename(tmp_path / "tokenizer" / file.name)
    filled = embed(["stop"], str(folder), tokens=5)["stop"]
    assert filled.shape == (5, 16) and torch.allclose(filled[:1], known["stop"], atol=1e-5)
    assert not filled[1:].any()
    with pytest.raises(ValueError, match="tokens=999 is not possible: this encoder reads 512"):
        embed(["stop"], str(folder), tokens=999)


def test_clip_cuts_what_it_has_no_position_for(tmp_path):
    folder = save_encoder(tmp_path, "clip", WORDS)
    assert embed([" ".join(WORDS)], str(folder))[" ".join(WORDS)].shape == (8, 16)


def test_a_model_reads_the_file_that_the_verb_wrote(encoder, tmp_path):
    path = tmp_path / "text.safetensors"
    code, out, err = wamrl("embed", "two-goals", "--encoder", encoder, "--file", path)
    assert (code, err) == (0, "") and f"--model.world.text {path}" in out
    config = two_goals()
    spec = env_spec(config)
    world = replace(tiny.MODEL.world, text=str(path))
    model = replace(tiny.MODEL, world=world)
    wam = build_wam(model, spec, seed=0, device="cpu")
    said = wam.world.text(spec.instructions)
    assert said.shape == (2, world.width) and not torch.allclose(said[0], said[1])
    learned = {name for name, _ in wam.world.text.named_parameters()}
    assert learned == {"project.weight", "project.bias"}
    saved = save_wam(model, spec, wam, tmp_path / "run", "base")
    again = load_wam(model, spec, saved, seed=1, device="cpu")
    assert torch.equal(again.world.text(spec.instructions), said)
    wamrl("embed", "point", "--encoder", encoder, "--file", path)
    with pytest.raises(ValueError, match="another file of instructions"):
        load_wam(model, spec, saved, seed=1, device="cpu")


def test_bad_input_gets_one_sentence(encoder, tmp_path):
    file = ("--file", tmp_path / "x.safetensors")
    assert "--encoder" in refused("embed", "point", code=2)
    assert "holds no text encoder" in refused("embed", "point", "--encoder", tmp_path, *file)
    assert "cannot write" in refused(
        "embed", "point", "--encoder", encoder, "--file", tmp_path / "none" / "x.safetensors"
    )
    (tmp_path / "broken.safetensors").write_bytes(np.random.bytes(64))
    for name in ("none.safetensors", "broken.safetensors"):
        with pytest.raises(ValueError, match="is not readable"):
            EmbeddedText(str(tmp_path / name), 8)
    known = embed(["the goal"], str(encoder))
    from safetensors.torch import save_file

    save_file(known, tmp_path / "known.safetensors")
    read = EmbeddedText(str(tmp_path / "known.safetensors"), 8)
    with pytest.raises(ValueError, match="no embedding of 'the disc'"):
        read(("the disc",))
    with pytest.raises(ValueError, match="must hold one"):
        TextFile(str(tmp_path / "known.safetensors"), width=4)
