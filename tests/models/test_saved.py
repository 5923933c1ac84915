"""Models made, kept and loaded; configurations compared by what they are called."""

from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl.models.saved import build_wam, load_wam, model_state, save_wam
from wamrl.runtime import checkpoint
from wamrl.runtime.files import config_difference
from wamrl.runtime.log import resolved

ENV = tiny.ENV.build().spec


def load(path, model=tiny.MODEL):
    return load_wam(model, ENV, path, seed=0, device="cpu")


def test_a_model_comes_back_as_it_was(tmp_path):
    wam = tiny.lively()
    wam.sampler = "zero"
    folder = save_wam(tiny.MODEL, wam, tmp_path, "base")
    for path in (folder, tmp_path):
        loaded = load(path)
        assert loaded.sampler == "zero" and not tiny.changed(loaded, tiny.snapshot(wam))
    other = tiny.lively(seed=1)
    save_wam(tiny.MODEL, other, tmp_path, "final")  # of a run folder, the final model
    assert not tiny.changed(load(tmp_path), tiny.snapshot(other))


def test_a_fresh_model_follows_from_the_seed():
    one, same, other = (build_wam(tiny.MODEL, ENV, seed=s, device="cpu") for s in (3, 3, 4))
    assert not tiny.changed(one, tiny.snapshot(same)) and tiny.changed(one, tiny.snapshot(other))


def test_loading_leaves_the_random_state_that_building_leaves(tmp_path):
    """What is initialised next, such as the value head, does not depend on how a model came."""
    folder = save_wam(tiny.MODEL, tiny.lively(), tmp_path, "base")
    build_wam(tiny.MODEL, ENV, seed=0, device="cpu")
    after_building = torch.randn(3)
    load(folder)
    assert torch.equal(torch.randn(3), after_building)


def test_a_model_of_before_a_move_loads(tmp_path):
    """A saved configuration names the modules of its time."""

    def of_before(saved):
        if not isinstance(saved, dict):
            return saved
        moved = {k: of_before(v) for k, v in saved.items()}
        if "class" in moved:
            moved["class"] = "wamrl.models.where_it_was:" + moved["class"].rpartition(":")[2]
        return moved

    wam = tiny.lively()
    state = model_state(tiny.MODEL, wam)
    state["model"] = of_before(state["model"]) | {"class": "wamrl.models.wam:WAMConfig"}
    del state["sampler"]  # those of long before do not say
    loaded = load(checkpoint.save_named(tmp_path, "base", state))
    assert loaded.sampler is None and not tiny.changed(loaded, tiny.snapshot(wam))


def test_another_model_is_refused_in_words(tmp_path):
    folder = save_wam(tiny.MODEL, tiny.lively(), tmp_path, "base")
    with pytest.raises(ValueError, match="chunk is 8 there and 4 here"):
        load(folder, replace(tiny.MODEL, chunk=4))
    state = checkpoint.load(folder)
    del state["wam"]["actor.head.weight"]
    with pytest.raises(ValueError, match="does not fit the model"):
        load(checkpoint.save_named(tmp_path, "other", state))
    with pytest.raises(ValueError, match="is not a model checkpoint"):
        load(checkpoint.save_named(tmp_path, "none", {"model": {}}))


def test_bfloat16_is_refused_where_it_is_slow(monkeypatch):
    monkeypatch.setattr("wamrl.models.saved.fast_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="use float32"):
        build_wam(replace(tiny.MODEL, compute="bfloat16"), ENV, seed=0, device="cpu")


def test_the_first_difference_is_named():
    mine = resolved(tiny.MODEL)
    assert config_difference(mine, mine, "model") is None
    other = mine | {"world": mine["world"] | {"depth": 9}}
    fault = config_difference(other, mine, "model")
    assert fault == "model.world.depth is 9 there and 2 here"
    renamed = mine | {"world": mine["world"] | {"class": "lab.models:Mixer"}}
    assert "model.world.class is lab.models:Mixer there" in config_difference(
        renamed, mine, "model"
    )
    without = {k: v for k, v in mine.items() if k != "chunk"}
    assert config_difference(without, mine, "model") == "model.chunk is None there and 8 here"
