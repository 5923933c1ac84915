"""Configurations read back from what a run or a model folder says."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support import tiny
from wamrl.config import Config
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.find import recipes
from wamrl.runtime.log import resolved
from wamrl.runtime.restore import config_difference, restored


@dataclass(frozen=True, kw_only=True)
class Part:
    rate: float = 1.0
    offsets: tuple[int, ...] = (4, 8)
    pairs: tuple[tuple[str, str], ...] = (("a", "b"),)
    place: Path = Path("x")
    view: str | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    part: Part = field(default_factory=Part)
    parts: tuple[Part, ...] = (Part(), Part(rate=2.0))


def as_read(config: object) -> dict:
    """As it comes from a file."""
    return json.loads(json.dumps(resolved(config)))


def test_every_kind_of_value_is_restored():
    made = Whole(
        part=Part(rate=math.inf, offsets=(1,), pairs=(("c", "d"), ("e", "f")), place=Path("y/z")),
        parts=(Part(view="top"), Part(rate=0.5)),
    )
    assert restored(Whole, as_read(made), "config") == made
    config = replace(tiny.CONFIG, seed=7, flow=replace(tiny.CONFIG.flow, noise=0.25))
    assert restored(Config, as_read(config), "config") == config


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_of_ours_can_be_read_back(name):
    config = recipes()[name]()
    assert restored(Config, as_read(config), name) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 2.5}, "model.world.depth cannot be 2.5"),
        ({"depth": True}, "model.world.depth cannot be True"),
        ({"taps": 3}, "model.world.taps cannot be 3"),
        ({"speed": 1}, "has speed, which this wamrl does not know"),
        ({"class": "os:system"}, "is a os:system, which is not loaded"),
        ({"class": "wamrl.models.action_head:ActionHeadConfig"}, "which is not loaded"),
        ({"class": "wamrl.nowhere:AConfig"}, "which is not loaded"),
    ],
)
def test_configurations_that_are_none(change, words):
    saved = resolved(tiny.MODEL)
    with pytest.raises(ValueError, match=words):
        restored(WAMConfig, saved | {"world": saved["world"] | change}, "model")


def test_a_file_does_not_choose_what_is_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    saved = resolved(Whole()) | {"class": "evil_module:Other"}
    with pytest.raises(ValueError, match="import evil_module first, if you trust it"):
        restored(Whole, saved, "config")
    assert "evil_module" not in sys.modules


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
    without = {key: value for key, value in mine.items() if key != "compute"}
    assert config_difference(without, mine, "model") is None
    fault = config_difference(without, mine | {"compute": "bfloat16"}, "model")
    assert fault == "model.compute is None there and bfloat16 here"


def test_a_file_that_is_older_than_a_field_is_read_with_its_default():
    saved = as_read(Part())
    del saved["offsets"]
    assert restored(Part, saved, "part") == Part()
    with pytest.raises(ValueError, match="has speed, which this wamrl does not know"):
        restored(Part, saved | {"speed": 1}, "part")
