"""Models made, kept and loaded; configurations compared by what they are called."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.models.saved import build_wam, load_model, load_wam, model_folder, save_wam
from wamrl.runtime import checkpoint
from wamrl.runtime.files import sha256
from wamrl.runtime.log import resolved

ENV = tiny.ENV.build().spec


def save(wam, run, name, model=tiny.MODEL):
    return save_wam(model, ENV, wam, run, name)


def load(path, model=tiny.MODEL):
    return load_wam(model, ENV, path, seed=0, device="cpu")


def test_a_model_comes_back_as_it_was(tmp_path):
    wam = tiny.lively()
    wam.sampler = "zero"
    folder = save(wam, tmp_path, "base")
    for path in (folder, tmp_path):
        loaded = load(path)
        assert loaded.sampler == "zero" and not tiny.changed(loaded, tiny.snapshot(wam))
    other = tiny.lively(seed=1)
    save(other, tmp_path, "final")  # of a run folder, the final model
    assert not tiny.changed(load(tmp_path), tiny.snapshot(other))


def test_a_fresh_model_follows_from_the_seed():
    one, same, other = (build_wam(tiny.MODEL, ENV, seed=s, device="cpu") for s in (3, 3, 4))
    assert not tiny.changed(one, tiny.snapshot(same)) and tiny.changed(one, tiny.snapshot(other))


def test_loading_leaves_the_random_state_that_building_leaves(tmp_path):
    """What is initialised next, such as the value head, does not depend on how a model came."""
    folder = save(tiny.lively(), tmp_path, "base")
    build_wam(tiny.MODEL, ENV, seed=0, device="cpu")
    after_building = torch.randn(3)
    load(folder)
    assert torch.equal(torch.randn(3), after_building)


def moved(saved):
    """A configuration as of before its modules moved."""
    if not isinstance(saved, dict):
        return saved
    there = {k: moved(v) for k, v in saved.items()}
    if "class" in there:
        there["class"] = "wamrl.models.where_it_was:" + there["class"].rpartition(":")[2]
    return there


def test_checkpoints_of_before_load(tmp_path):
    """They name the modules of their time, not the environment, and long ago not the sampler."""
    wam = tiny.lively()
    config = moved(resolved(tiny.MODEL)) | {"class": "wamrl.models.wam:WAMConfig"}
    folder = checkpoint.save_named(tmp_path, "base", {"model": config, "wam": wam.state_dict()})
    loaded = load(folder)
    assert loaded.sampler is None and not tiny.changed(loaded, tiny.snapshot(wam))
    with pytest.raises(ValueError, match="does not say what it was made for: give its recipe"):
        load_model(folder)


def test_another_model_is_refused_in_words(tmp_path):
    folder = save(tiny.lively(), tmp_path, "base")
    with pytest.raises(ValueError, match="chunk is 8 there and 4 here"):
        load(folder, replace(tiny.MODEL, chunk=4))
    weights = tiny.lively().state_dict()
    del weights["actor.head.weight"]
    state = {"model": resolved(tiny.MODEL), "wam": weights}
    with pytest.raises(ValueError, match="does not fit the model"):
        load(checkpoint.save_named(tmp_path, "other", state))
    with pytest.raises(ValueError, match="is not a model checkpoint"):
        load(checkpoint.save_named(tmp_path, "none", {"model": {}}))
    fine_tuned = {"wam": weights, "average": weights, "done": 3}
    with pytest.raises(ValueError, match="is not a model checkpoint"):
        load(checkpoint.save_named(tmp_path, "sft-resume", fine_tuned))


# --- a model folder needs nothing else

ALONE = """
import sys
import torch
from wamrl.models.saved import load_model
one = load_model(sys.argv[1])
assert not any(name.startswith(("tests", "wamrl.recipes")) for name in sys.modules)
print(one.env.name, one.config.chunk, one.wam.sampler, sum(
    p.double().sum().item() for p in one.wam.parameters()))
"""


def test_a_model_is_rebuilt_from_its_folder_alone(tmp_path):
    wam = tiny.lively()
    wam.sampler = "ode"
    folder = save(wam, tmp_path, "final").rename(tmp_path / "given away")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True, timeout=60
    )
    weights = sum(p.double().sum().item() for p in wam.parameters())
    assert done.stdout.split() == [ENV.name, "8", "ode", str(weights)], done.stderr
    one = load_model(folder)
    assert one.config == tiny.MODEL and one.env == ENV and one.folder == folder
    assert not tiny.changed(one.wam, tiny.snapshot(wam))


def test_documents_may_lie_beside_a_model_and_nothing_else(tmp_path):
    """Where models are published, pictures, a licence and git's own files are put beside them."""
    folder = save(tiny.lively(), tmp_path, "final")
    (folder / ".git").mkdir()
    for name in ("README.md", "LICENSE", "curve.png", "demo.mp4", ".gitattributes"):
        (folder / name).write_text("x")
    assert not tiny.changed(load(folder), tiny.snapshot(tiny.lively()))
    for name in ("more.pkl", "modeling.py", "pytorch_model.bin", "README.md.pt"):
        (folder / name).write_text("x")
        with pytest.raises(ValueError, match=f"{name} is not named by the manifest there"):
            load(folder)
        (folder / name).unlink()


def test_its_configuration_is_plain_json(tmp_path):
    model = replace(tiny.MODEL, world=replace(tiny.MODEL.world, motion_weight=0.1))
    folder = save(tiny.fresh(model=model), tmp_path, "base", model)
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["world"]["motion_weight"] == 0.1 and config["env"]["horizon"] == 40
    assert config["sampler"] is None and "0x" not in (folder / "config.json").read_text()


def test_no_class_is_imported_because_a_file_says_so(tmp_path):
    folder = save(tiny.lively(), tmp_path, "base")
    path = folder / "config.json"
    text = path.read_text().replace("wamrl.models.video_dit:VideoDiTConfig", "canary:Config")
    path.write_text(text)
    (folder / "canary.py").write_text("raise SystemExit('executed')")
    manifest = {f.name: sha256(f) for f in folder.iterdir() if f.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="model.world is a canary:Config, which is not loaded"):
        load_model(folder)
    assert "canary" not in sys.modules


def test_what_a_run_folder_means(tmp_path):
    """The finished model; of a run that was cut off the newest step, and never silently `base`."""
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="holds no model yet: finish its fine-tuning"):
        model_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"train": {}, "model": resolved(tiny.MODEL)}))
    save(tiny.lively(), tmp_path, "base")
    assert model_folder(tmp_path).name == "base"
    for step in (2, 10):
        wam = tiny.lively(seed=step)
        state = {"wam": wam.state_dict(), "sampler": "zero", "average": {}, "frozen": {}}
        checkpoint.save_step(tmp_path, step, state)
    assert model_folder(tmp_path).name == "step-00000010"
    for path in (tmp_path, model_folder(tmp_path)):
        assert load(path).sampler == "zero" and not tiny.changed(load(path), tiny.snapshot(wam))
    save(tiny.lively(), tmp_path, "final")
    assert model_folder(tmp_path).name == "final"
    assert model_folder(tmp_path / "checkpoints" / "base").name == "base"


def test_bfloat16_is_refused_where_it_is_slow(monkeypatch):
    monkeypatch.setattr("wamrl.models.saved.fast_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="use float32"):
        build_wam(replace(tiny.MODEL, compute="bfloat16"), ENV, seed=0, device="cpu")
