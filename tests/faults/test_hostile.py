"""Files made to do harm: every one is refused in one sentence, and the canary is never touched."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from wamrl.models.saved import load_model, save_wam
from wamrl.runtime import checkpoint
from wamrl.runtime.files import sha256
from wamrl.runtime.log import read_config


class Harm:
    """Unpickled, it touches the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def pickled(folder: Path, canary: Path) -> None:
    for name in ("model.safetensors", "data.pkl", "pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Harm(canary)))


def torch_file(folder: Path, canary: Path) -> None:
    torch.save({"w": Harm(canary)}, folder / "model.safetensors")


def code_beside(folder: Path, canary: Path) -> None:
    for name in ("modeling.py", "__init__.py", "sitecustomize.py", "video_dit.py"):
        (folder / name).write_text(f"import os\nos.mkdir({str(canary)!r})")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Model"}
    config["model"]["world"]["class"] = "modeling:Model"
    (folder / "config.json").write_text(json.dumps(config))


def header(text: bytes, length: int | None = None):
    def write(folder: Path, canary: Path) -> None:
        size = struct.pack("<Q", len(text) if length is None else length)
        (folder / "model.safetensors").write_bytes(size + text)

    return write


def outside(folder: Path, canary: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"../../etc/passwd": "0"}))


def absolute(folder: Path, canary: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"/etc/passwd": sha256(Path("/etc/passwd"))}))


def pipe(name: str):
    def write(folder: Path, canary: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return write


def archive(folder: Path, canary: Path) -> None:
    with zipfile.ZipFile(folder / "model.safetensors", "w") as file:
        file.writestr(f"../../{canary.name}", "x")


def distributed(folder: Path, canary: Path) -> None:
    """As `torch.distributed.checkpoint` writes it: its metadata is a pickle."""
    (folder / "model.safetensors").unlink()
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(pickle.dumps(Harm(canary)))


def endless(folder: Path, canary: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def text_for_code(folder: Path, canary: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["sampler"] = f"__import__('os').mkdir({str(canary)!r})"
    (folder / "config.json").write_text(json.dumps(config))


HUGE = {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
OVERLAP = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")}
HOSTILE = {
    "pickle": pickled,
    "torch file": torch_file,
    "code beside": code_beside,
    "header longer than the file": header(b"{}", 1 << 60),
    "header without end": header(b"{" * 1000),
    "tensors of terabytes": header(json.dumps(HUGE).encode()),
    "tensors that overlap": header(json.dumps(OVERLAP).encode() + b" " * 8),
    "path outside": outside,
    "absolute path": absolute,
    "pipe for weights": pipe("model.safetensors"),
    "pipe for a configuration": pipe("config.json"),
    "pipe for a manifest": pipe("manifest.json"),
    "archive": archive,
    "distributed checkpoint": distributed,
    "nested for ever": endless,
    "an expression": text_for_code,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("signed", [False, True], ids=["", "signed"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_model_folder_is_refused(kind, signed, tmp_path, monkeypatch):
    """signed: with a manifest that fits, as who means harm would write it."""
    folder = save_wam(tiny.MODEL, tiny.ENV.build().spec, tiny.fresh(), tmp_path, "final")
    canary = tmp_path / "canary"
    HOSTILE[kind](folder, canary)
    if signed and kind not in ("path outside", "absolute path", "pipe for a manifest"):
        files = [p for p in folder.iterdir() if p.is_file() and p.name != "manifest.json"]
        (folder / "manifest.json").write_text(json.dumps({p.name: sha256(p) for p in files}))
    monkeypatch.chdir(folder)
    for read in (load_model, checkpoint.load):
        with pytest.raises(ValueError) as caught:
            read(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not canary.exists() and not (tmp_path.parent / "canary").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json"])
def test_a_pipe_in_a_run_folder_keeps_nobody_waiting(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="it is no file"):
        read_config(tmp_path)
