"""`run.json`: what a run knows of itself, so that it can go on alone and be made again.

command, recipe, config     as typed, by name, resolved (as config.json)
data, base, keys            place and digest of what it learns from and begins with, or null
versions, commit, machine   every loaded package; of the code; cores, CPU, memory, GPUs
started, resumed            when; and for every time that it went on, what was changed
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from wamrl.data.keys import DataKeys
from wamrl.runtime.cores import all_cores, memory
from wamrl.runtime.files import (
    MANIFEST,
    read_json,
    sha256,
    write_text,
)
from wamrl.runtime.log import resolved
from wamrl.runtime.restore import config_differences

FILE = "run.json"
VERSION = 1
_ADVICE = "name another run folder"
_WHOLE_BYTES = 1 << 20  # of files without a manifest: larger ones count by size and both ends
_END_BYTES = 1 << 16

# What a resumed run may have otherwise. `train` may go on for longer, the machine may be another,
# and how often one looks and saves changes nothing that is learned.
PROLONGED = ("config.train.iterations", "config.train.env_steps")
MACHINE = ("config.pool.", "config.threads", "config.train.cache_mb")
OUTPUTS = ("config.eval.episodes", "config.train.save_every", "config.sft.save_every")
NO_KEYS = DataKeys()
FREE = (*PROLONGED, *MACHINE, *OUTPUTS)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Something that a run was made from."""

    path: str  # absolute
    digest: str  # sha256 of its content manifest, see `digest`


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of run.json."""

    command: list[str]
    recipe: str
    config: dict[str, Any]
    data: Source | None = None  # None: it records its own
    base: Source | None = None
    keys: DataKeys = DataKeys()  # what the columns of `data` are called
    versions: dict[str, str] = field(default_factory=dict)
    commit: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    resumed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """What made the run."""
        return self.command[1]


def source(path: Path) -> Source:
    """`path` as it is now."""
    return Source(path=str(path.resolve()), digest=digest(path))


def digest(path: Path) -> str:
    """sha256 over the content of a file or folder, whatever it is called, in hexadecimal.

    A folder with a manifest, such as a checkpoint, counts by it, and a run folder by its
    demonstrations. Of anything else large files count by their size and both ends.
    """
    if (path / MANIFEST).is_file():
        return sha256(path / MANIFEST)
    parts = [path / name for name in ("demos", "heldout") if (path / name).is_dir()]
    files = sorted(file for part in parts or [path] for file in _files(part))
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(path)}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _file_digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return sha256(path)
    with open(path, "rb") as file:
        ends = file.read(_END_BYTES)
        file.seek(-_END_BYTES, os.SEEK_END)
        ends += file.read()
    return f"{size} {hashlib.sha256(ends).hexdigest()}"


def new_record(
    command: Sequence[str],
    recipe: str,
    config: object,
    data: Path | None,
    base: Path | None,
    keys: DataKeys = NO_KEYS,
) -> RunRecord:
    """Of a run that begins now, here. recipe: its name, or "" where it has none."""
    return RunRecord(
        command=list(command),
        recipe=recipe,
        config=resolved(config),
        data=None if data is None else source(data),
        base=None if base is None else source(base),
        keys=keys,
        started=_now(),
        **_surroundings(),
    )


def write_record(run: Path, record: RunRecord) -> None:
    """run.json, at once."""
    write_text(run / FILE, record_text(record))


def record_text(record: RunRecord) -> str:
    """What run.json holds."""
    content = {"format": "wamrl-run", "version": VERSION} | asdict(record)
    return json.dumps(content, indent=1) + "\n"


def require_run(run: Path) -> None:
    """ValueError of one sentence unless it is a run folder."""
    if not (run / "config.json").is_file():
        raise ValueError(
            f"{run} is not a run folder (no config.json): name one that `wamrl` has made"
        )


def read_record(run: Path) -> RunRecord | None:
    """What the run says of itself; None of runs of before there was run.json.
    ValueError of one sentence if it is not readable.
    """
    path = run / FILE
    if not path.is_file():
        return None
    found = read_json(path, "run folder", _ADVICE)
    known = {f.name for f in fields(RunRecord)}
    try:
        if found["format"] != "wamrl-run" or found["version"] != VERSION:
            raise ValueError(f"version {found['version']}, this wamrl reads version {VERSION}")
        content = {name: value for name, value in found.items() if name in known}
        for name in ("data", "base"):
            if content[name] is not None:
                content[name] = Source(**content[name])
        content["keys"] = DataKeys.of(content.get("keys", {}))
        record = RunRecord(**content)
        text = [*record.command, record.recipe]
        if len(record.command) < 2 or not all(isinstance(word, str) for word in text):
            raise ValueError("command and recipe are no words")
        return record
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what wamrl writes ({error}): {_ADVICE}") from error


def record_of(place: Path) -> RunRecord | None:
    """The record of the run that `place` is or lies in, such as runs/NAME/checkpoints/base."""
    for folder in (place, *place.resolve().parents[:2]):
        if (folder / FILE).is_file():
            return read_record(folder)
    return None


def changes(saved: object, mine: object, *, force: bool, run: Path) -> dict[str, list]:
    """What a resumed run has otherwise: option -> [there, here], resolved.

    ValueError of one sentence that names the first one that it may not have.
    """
    found = {}
    for name, there, here in config_differences(saved, mine, "config"):
        rate = name.endswith((".lr", "_lr"))
        if rate and not force:
            raise ValueError(
                f"cannot resume {run} with another configuration: {name} is {there} there and "
                f"{here} here; --force changes learning rates"
            )
        if not rate and not name.startswith(FREE):
            raise ValueError(
                f"cannot resume {run} with another configuration: {name} is {there} there and "
                f"{here} here"
            )
        found[name.removeprefix("config.")] = [there, here]
    return found


def resumed(record: RunRecord, config: object, changed: dict, command: Sequence[str]) -> RunRecord:
    """The record of a run that goes on now, here."""
    entry = {"at": _now(), "command": list(command), "changed": changed, **_surroundings()}
    return replace(record, config=resolved(config), resumed=[*record.resumed, entry])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _surroundings() -> dict[str, Any]:
    """versions, commit and machine."""
    return {"versions": _versions(), "commit": _commit(), "machine": _machine()}


def _versions() -> dict[str, str]:
    """Of Python and of every package that is loaded, the simulators among them."""
    names = _packages()
    loaded = {module.partition(".")[0] for module in sys.modules}
    packages = {package for module in loaded for package in names.get(module, ())}
    found = {package: importlib.metadata.version(package) for package in sorted(packages)}
    own = {"python": platform.python_version(), "wamrl": sys.modules["wamrl"].__version__}
    return own | found


@functools.cache  # half a second: it reads what every installed package consists of
def _packages() -> Mapping[str, list[str]]:
    """The packages that a module may come from."""
    return importlib.metadata.packages_distributions()


def _commit() -> dict[str, str]:
    """Of wamrl's own checkout and of the current folder's, with "-dirty" if it was changed."""
    places = {"wamrl": Path(__file__).parent, "here": Path.cwd()}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = {}
    for name, place in places.items():
        try:
            options = {"capture_output": True, "text": True, "timeout": 20, "check": True}
            found[name] = subprocess.run(command, cwd=place, **options).stdout.strip()
        except (OSError, subprocess.SubprocessError):  # no git, or no checkout
            continue
    return found


def _machine() -> dict[str, Any]:
    gpus = range(torch.cuda.device_count())
    return {
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": all_cores(),
        "memory_gb": round(memory() / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in gpus],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
