"""Files and folders are written as a whole or not at all, whatever happens on the way."""

import os
import signal
import subprocess
import sys

import pytest

from wamrl.runtime import files
from wamrl.runtime.files import MANIFEST, atomic_file, atomic_folder, shared_folder, write_text


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_when_its_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_file(path) as draft:
        assert draft.parent == path.parent, "else renaming could cross file systems"
        draft.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    write_text(path, "newer ü")
    assert path.read_text(encoding="utf-8") == "newer ü"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_stays_as_it_was_when_its_block_raises(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        with atomic_file(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_sentence(tmp_path):
    for atomic in (atomic_file, atomic_folder):
        with pytest.raises(ValueError, match="cannot write .*: No space left.*free space"):
            with atomic(tmp_path / "x"):
                raise OSError(28, "No space left on device")
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="cannot write .*nowhere"):
        write_text(tmp_path / "nowhere" / "a.txt", "")


def test_a_folder_is_there_when_its_block_ends(tmp_path):
    path = tmp_path / "made" / "on" / "the" / "way"
    with atomic_folder(path) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a").write_text("a")
        assert not path.exists()
    assert (path / "deep" / "a").read_text() == "a"
    assert names(path.parent) == ["way"]


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_a_folder_takes_nobodys_place(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="exists already"):
        with atomic_folder(path):
            raise AssertionError("the block must not be entered")
    with pytest.raises(ValueError, match="was not written by wamrl"):
        with atomic_folder(path, replaces=MANIFEST):
            raise AssertionError("the block must not be entered")
    assert names(tmp_path) == ["x"]


def test_a_folder_of_the_same_kind_is_replaced_whole(tmp_path):
    path = tmp_path / "c"
    for text in ("old", "new"):
        with shared_folder(path) as draft:
            (draft / text).write_text(text)
    assert names(path) == [MANIFEST, "new"]
    with pytest.raises(RuntimeError):
        with shared_folder(path):
            raise RuntimeError
    files.check_folder(path, "checkpoint", "start again")
    assert names(tmp_path) == ["c"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "c"
    with shared_folder(path) as draft:
        (draft / "old").write_text("old")
    rename = os.rename

    def fails_once(source, target):
        if str(target) == str(path) and source.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(files, "_exchange", lambda draft, path: False)  # where names cannot be
    monkeypatch.setattr(files.os, "rename", fails_once)
    with pytest.raises(ValueError, match="Input/output error"):
        with shared_folder(path) as draft:
            (draft / "new").write_text("new")
    assert names(path) == [MANIFEST, "old"]
    assert names(tmp_path) == ["c"]


KILLED = """
import os, signal, sys
from pathlib import Path
from wamrl.runtime.files import atomic_file, atomic_folder
out = Path(sys.argv[1])
with atomic_file(out / "a.txt") as file, atomic_folder(out / "b") as folder:
    file.write_text("half")
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_behind_disturbs_nobody(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"
    assert not (tmp_path / "b").exists()
    drafts = [name for name in names(tmp_path) if name != "a.txt"]
    assert len(drafts) == 2
    assert all(name.startswith(".") and name.endswith(".tmp") for name in drafts)
    write_text(tmp_path / "a.txt", "new")
    with atomic_folder(tmp_path / "b") as draft:
        (draft / "whole").write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path / "b") == ["whole"]
