"""Checkpoints without pickle: a folder of tensors (safetensors),
structure (JSON) and a sha256 manifest.

What may be in a state: dicts (keys: str, int, float, bool, None), lists, tuples, None, bool, int,
float, str, bytes, torch tensors and numpy arrays of any dtype and shape. It comes back bitwise, on
the CPU, with the same nesting, key order and types (a Parameter as a Tensor, an OrderedDict as a
dict). A folder is written whole or not at all, so a crash or a full disk leaves the earlier
checkpoints alone.

Example:
    save(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 12})
    state = load(path)
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wamrl.runtime import dist
from wamrl.runtime.checkpoint_tree import apart, decode, encode, shards
from wamrl.runtime.files import check_folder, read_json, shared_folder

FORMAT = "wamrl-checkpoint"
VERSION = 1
_STATE = "state"  # file names
_PART = "part-{:05d}"
_TENSORS = {_STATE: "tensors"}
_ADVICE = "resume from another checkpoint, or start again"


def save(path: Path, state: dict, own: dict | None = None) -> None:
    """Write `state` to the folder `path`, replacing a checkpoint there;
    ValueError of one sentence if that fails.

    Called by all ranks alike: the first one writes `state`, which is the same everywhere, and each
    its `own` and its part of what is sharded.
    """
    with shared_folder(path) as draft:
        if dist.is_main():
            _write(draft, _STATE, state)
        if parts := shards(state, "state"):
            save_tensors(parts, draft / f"shards-{dist.rank():05d}.safetensors")
        if own is not None:
            _write(draft, _PART.format(dist.rank()), own)


def load(path: Path) -> dict:
    """The state in the folder `path`;
    ValueError of one sentence if it is missing, corrupt, foreign or too new.
    """
    check_folder(path, "checkpoint", _ADVICE)
    return _read(path, _STATE)


def load_parts(path: Path) -> Iterator[dict]:
    """What each rank has saved as its own, in their order, however many they were;
    ValueError as for `load`.
    """
    check_folder(path, "checkpoint", _ADVICE)
    for file in sorted(Path(path).glob("part-*.json")):
        yield _read(path, file.stem)


def _write(folder: Path, name: str, state: dict) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = {"format": FORMAT, "version": VERSION, "state": encode(state, "state", tensors)}
    save_tensors(tensors, folder / f"{_TENSORS.get(name, name)}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """One safetensors file of tensors that may share memory; OSError if it cannot be written."""
    try:
        save_file(apart(tensors), path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # a full disk, no permission
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _read(path: Path, name: str) -> dict:
    tree = read_json(Path(path) / f"{name}.json", "checkpoint", _ADVICE)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of wamrl: {_ADVICE}")
    if tree.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {tree.get('version')}, this wamrl reads version {VERSION}: "
            f"{_ADVICE}"
        )
    try:
        parts = (
            [load_file(file) for file in sorted(Path(path).glob("shards-*.safetensors"))]
            if name == _STATE
            else []
        )
        state = decode(
            tree["state"], load_file(Path(path) / f"{_TENSORS.get(name, name)}.safetensors"), parts
        )
        assert isinstance(state, dict), "a state is a dict"
        return state
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    ) as error:
        raise ValueError(
            f"{path} is not readable ({type(error).__name__}: {error}): {_ADVICE}"
        ) from error


def save_step(
    run_dir: Path, step: int, state: dict, own: dict | None = None, keep: int = 3
) -> Path:
    """Write run_dir/checkpoints/step-<step> and delete all but the last `keep` of these;
    `best` and `final` stay.
    """
    path = Path(run_dir) / "checkpoints" / f"step-{step:08d}"
    save(path, state, own)
    for old in steps(run_dir)[: -max(1, keep)] if dist.is_main() else []:
        shutil.rmtree(old, ignore_errors=True)
    return path


def save_named(run_dir: Path, name: str, state: dict) -> Path:
    """Write run_dir/checkpoints/<name>, such as `best` or `final`, replacing the one before."""
    path = Path(run_dir) / "checkpoints" / name
    save(path, state)
    return path


def latest(run_dir: Path) -> Path:
    """The checkpoint of the highest step; ValueError if there is none."""
    if not (found := steps(run_dir)):
        raise ValueError(
            f"there is no checkpoint in {run_dir}/checkpoints: start the run without resuming"
        )
    return found[-1]


def newest_sound(run_dir: Path) -> tuple[Path, list[str]]:
    """The checkpoint of the highest step that is whole, and what is wrong with later ones, a
    sentence each; on all ranks what the first one finds.

    ValueError if there is none: with the sentence of the newest one.
    """
    found = ""
    faults = []
    for path in reversed(steps(run_dir)) if dist.is_main() else []:
        try:
            check_folder(path, "checkpoint", _ADVICE)
            found = str(path)
            break
        except ValueError as error:
            faults.append(str(error))
    found, *faults = dist.broadcast_texts([found, *faults])
    if not found:
        raise ValueError(faults[0] if faults else f"there is no checkpoint in {run_dir}")
    return Path(found), faults


def set_aside(run_dir: Path, step: Path) -> list[Path]:
    """Move the checkpoints of later steps than `step` to `damaged-NAME-xxxxxxxx`: the run goes on
    from `step` and will write them anew. Where they are now.
    """
    moved = []
    for path in steps(run_dir) if dist.is_main() else []:
        if int(path.name[5:]) > int(step.name[5:]):
            moved.append(path.with_name(f"damaged-{path.name}-{secrets.token_hex(4)}"))
            path.rename(moved[-1])
    return moved


def steps(run_dir: Path) -> list[Path]:
    """The checkpoints of steps, in their order."""
    found = (Path(run_dir) / "checkpoints").glob("step-*")
    return sorted(
        (p for p in found if re.fullmatch(r"step-\d+", p.name)), key=lambda p: int(p.name[5:])
    )
