"""SIGKILL at every file-system call of a save: what was there is there, whole, old or new."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from wamrl.runtime import checkpoint, files
from wamrl.runtime.files import sweep, write_text
from wamrl.runtime.log import new_run

MEMORY = Path("/dev/shm")
TOUCHING = {"posix", "io", "_io", "builtins", "safetensors._safetensors_rust"}


@pytest.fixture
def tmp_path(tmp_path) -> Iterator[Path]:
    """In memory where the machine has such a folder: a kill is no power cut, so nothing here needs
    a disk, and some hundred saves wait minutes for a busy one.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def touches(function: object) -> bool:
    """Is it a builtin that may touch the file system?"""
    owner = getattr(function, "__self__", None)
    home = getattr(function, "__module__", None) or type(owner).__module__
    named = getattr(function, "__name__", "")
    return home in TOUCHING and (home != "builtins" or named == "open")


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do `work` in a forked process that is killed just before its `number`-th call into the file
    system; False if it came to its end before.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = number

    def count(frame, event: str, function: object) -> None:
        nonlocal left
        if event == "c_call" and touches(function):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(count)
        work()
    finally:
        sys.setprofile(None)
        os._exit(0)


def save(run: Path, step: int) -> None:
    checkpoint.save_named(run, "best", {"step": step, "w": torch.full((3,), float(step))})


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "moved aside"])
def test_a_named_checkpoint_survives_at_every_call(exchange, tmp_path, monkeypatch):
    if not exchange:  # a file system that cannot
        monkeypatch.setattr(files, "_exchange", lambda draft, path: False)
    place = tmp_path / "checkpoints" / "best"
    seen = {1: 0, 2: 0}
    gone = 0
    number = 0
    save(tmp_path, 1)
    while killed_at(number, lambda: save(tmp_path, 2)):
        gone += not place.is_dir()
        sweep(tmp_path)  # what opening the run does
        state = checkpoint.load(place)
        step = state["step"]
        assert step in seen and torch.equal(state["w"], torch.full((3,), float(step)))
        seen[step] += 1
        assert [p.name for p in place.parent.iterdir()] == ["best"]
        if step == 2:
            save(tmp_path, 1)
        number += 1
    assert number > 40 and seen[1] > 30 and seen[2] > 3, (number, seen)
    assert checkpoint.load(place)["step"] == 2  # the last one came to its end
    assert not (exchange and gone), f"{gone} times the name was gone"
    print(f"{number} kills, {seen[1]} old, {seen[2]} new, {gone} times moved back")


def test_a_first_checkpoint_is_there_as_a_whole_or_not_at_all(tmp_path):
    number = 0
    while killed_at(number, lambda: checkpoint.save_step(tmp_path, 1, {"step": 1}, {"own": 2})):
        sweep(tmp_path)
        if (tmp_path / "checkpoints" / "step-00000001").is_dir():
            last = checkpoint.latest(tmp_path)
            assert checkpoint.load(last)["step"] == 1
            assert [part["own"] for part in checkpoint.load_parts(last)] == [2]
            checkpoint.shutil.rmtree(last)
        number += 1
    assert number > 40
    print(f"{number} kills")


def test_a_text_file_is_the_old_or_the_new_one_at_every_call(tmp_path):
    path = tmp_path / "summary.json"
    number = 0
    write_text(path, "old")
    while killed_at(number, lambda: write_text(path, "new")):
        sweep(tmp_path)
        assert path.read_text() in ("old", "new")
        assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
        number += 1
    assert number > 5 and path.read_text() == "new"


def test_sweeping_leaves_all_else(tmp_path):
    write_text(tmp_path / ".hidden-12345678.tmp.txt", "mine")
    (tmp_path / "notes.tmp").mkdir()
    (tmp_path / ".a-0123abcd.old").write_text("older")
    (tmp_path / "a").write_text("newer")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".b-0123abcd.old").write_text("b")
    (tmp_path / ".c-0123abcd.tmp").symlink_to(tmp_path / "deep")
    sweep(tmp_path)
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert names == [".hidden-12345678.tmp.txt", "a", "deep", "deep/b", "notes.tmp"]
    assert (tmp_path / "a").read_text() == "newer" and (tmp_path / "deep" / "b").read_text() == "b"


def test_a_new_run_knows_itself_from_its_first_moment(tmp_path):
    """Killed at every call while it is made, a folder is no run yet, or one with all its books."""
    number = 0
    books = {"run.json": "books"}
    while killed_at(number, lambda: new_run(tmp_path, "r", {"train": {}}, books)):
        for run in tmp_path.iterdir():
            sweep(run)
            there = {path.name for path in run.iterdir()}
            assert there == {"run.json", "config.json"} or "config.json" not in there
            shutil.rmtree(run)
        number += 1
    assert number > 10
    print(f"{number} kills")
