"""Bytes flipped, cut, missing, added: refused in one sentence that names the file, or what
was saved before is used.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wamrl.runs.folder import alone_in
from wamrl.runtime import checkpoint
from wamrl.runtime.log import read_config

FILES = ("manifest.json", "part-00000.json", "part-00000.safetensors", "state.json")
FILES += ("tensors.safetensors",)
STATE = {"w": torch.arange(40.0), "deep": {"lr": 0.1, "on": True}, "name": "x"}
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damages(draw) -> tuple[str, str, int, int]:
    """(file, kind, place, how)."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "remove", "swap", "add"]))
    return (
        draw(st.sampled_from(FILES)),
        kind,
        draw(st.integers(0, 1 << 16)),
        draw(st.integers(0, 7)),
    )


def damage(folder: Path, name: str, kind: str, place: int, how: int) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    place %= len(content)
    if kind == "flip":
        content[place] ^= 1 << how
    elif kind == "cut":
        del content[place:]
    elif kind == "insert":
        content[place:place] = bytes([how])
    elif kind == "remove":
        path.unlink()
        return
    elif kind == "swap":
        other = folder / FILES[(FILES.index(name) + 1 + how % 4) % len(FILES)]
        content = bytearray(other.read_bytes())
    elif kind == "add":
        (folder / f"{how}.safetensors").write_bytes(content)
        return
    path.write_bytes(bytes(content))


@FEW
@given(found=damages())
def test_every_damage_is_refused_in_one_sentence(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c") / "c"
    checkpoint.save(folder, STATE, {"own": torch.ones(3)})
    damage(folder, *found)
    for read in (checkpoint.load, lambda path: list(checkpoint.load_parts(path))):
        with pytest.raises(ValueError) as caught:
            read(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ["flip", "cut", "remove", "add"])
def test_the_newest_step_that_is_whole_is_used(kind, tmp_path):
    for step in (1, 2, 3):
        checkpoint.save_step(tmp_path, step, {"step": step}, {"own": step})
    damage(tmp_path / "checkpoints" / "step-00000003", FILES[3], kind, 9, 1)
    last, (fault,) = checkpoint.newest_sound(tmp_path)
    assert last.name == "step-00000002" and "step-00000003" in fault
    (moved,) = checkpoint.set_aside(tmp_path, last)
    assert moved.is_dir() and checkpoint.latest(tmp_path) == last
    checkpoint.save_step(tmp_path, 3, {"step": 3})  # nothing stands in its way
    assert checkpoint.newest_sound(tmp_path)[0].name == "step-00000003" and moved.is_dir()


def test_without_any_whole_step_nothing_is_touched(tmp_path):
    for step in (1, 2):
        folder = checkpoint.save_step(tmp_path, step, {"step": step})
        damage(folder, "state.json", "flip", 3, 0)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="step-00000002/state.json is corrupt"):
        checkpoint.newest_sound(tmp_path)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


CONFIGS = {
    "cut": b'{"class": "wamrl.config:Config", "na',
    "empty": b"",
    "a list": b"[]",
    "of another program": b'{"lr": 0.1}',
    "no text": b"\xff\xfe\x00",
    "nested": b'{"train": [' + b"[" * 3000,
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_damaged_or_foreign_configuration_is_one_sentence(kind, tmp_path):
    (tmp_path / "config.json").write_bytes(CONFIGS[kind])
    with pytest.raises(ValueError, match="config.json.*give a run folder that wamrl has made") as e:
        read_config(tmp_path)
    assert "\n" not in str(e.value)


def test_a_run_is_written_by_one_process_at_a_time(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(ValueError, match=r"is being written by process \d+ on .*: wait for"):
            with alone_in(tmp_path):
                raise AssertionError("two are in it")
    (tmp_path / ".a-0123abcd.tmp").mkdir()
    with alone_in(tmp_path):  # free again
        assert not (tmp_path / ".a-0123abcd.tmp").exists()
    shutil.rmtree(tmp_path)
