"""LIBERO's package, its files and its assets, without its questions at import.
Nothing here imports libero at the top.

The package asks on the terminal when `config.yaml` is missing; here that file is written first.
Meshes and textures are not in the package: without a path they come from the package's own `assets`
folder or from its hub download.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from wamrl.runtime.files import write_text

SUITES = {"spatial": 10, "object": 10, "goal": 10, "10": 10, "90": 90}  # tasks of each suite
INIT_STATES = 50  # fixed initial states of every task

NO_FOLDER = "assets={path} is no folder: give the one that holds LIBERO's scenes/ and textures/"
_MISSING = (
    "LIBERO is not installed: run pip install -e '.[libero]' in an environment of its own "
    "(it pins robosuite 1.4.0; scripts/libero.sh makes one) ({error})"
)
_NO_ASSETS = (
    "LIBERO's assets are incomplete: {file} is missing from {folder}; let LIBERO download them "
    "once "
    "(python -c 'import libero.libero as l; l.get_assets_path()', with network) or give the folder "
    "that holds them "
    "with assets=PATH (--env.assets)"
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a suite, in the suite's official order."""

    suite: str
    index: int
    name: str  # the stem of its files
    instruction: str
    bddl: Path
    init_states: Path


def package_dir() -> Path:
    """The folder `libero/libero` of the installed package, found without running it;
    ValueError when there is none.
    """
    spec = find_spec("libero")
    for root in spec.submodule_search_locations or () if spec else ():
        if (folder := Path(root) / "libero").is_dir():
            return folder
    raise ValueError(_MISSING.format(error="no module named 'libero'"))


def write_config(folder: Path, package: Path) -> Path:
    """Write the `config.yaml` that the package wants to read at import,
    five paths, unless there is one already.
    """
    path = folder / "config.yaml"
    if not path.exists():
        import yaml  # a dependency of libero

        parts = {
            "bddl_files": "bddl_files",
            "init_states": "init_files",
            "datasets": "../datasets",
            "assets": "assets",
        }
        paths = {"benchmark_root": str(package)} | {
            key: str(package / part) for key, part in parts.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(paths))  # at once: several workers may come here
    return path


@cache
def import_libero() -> Path:
    """Make libero importable without questions and return its package folder;
    ValueError says what to install.
    """
    package = package_dir()
    default = Path.home() / ".libero"
    write_config(Path(os.environ.setdefault("LIBERO_CONFIG_PATH", str(default))), package)
    logger = logging.getLogger("robosuite_logs")
    try:
        with _quiet(logger):
            import libero.libero.envs  # noqa: F401
    except ImportError as error:
        raise ValueError(_MISSING.format(error=error)) from error
    return package


@contextmanager
def _quiet(logger: logging.Logger) -> Any:
    """Drop the warnings of an import about robosuite's optional macro file."""
    logger.addFilter(refuse := lambda record: record.levelno >= logging.ERROR)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def tasks(suite: str) -> list[Task]:
    """All tasks of a suite ("spatial", "object", "goal", "10", "90")
    in the official order (task order 0).
    """
    package = import_libero()
    from libero.libero.benchmark import task_maps

    name = f"libero_{suite}"
    return [
        Task(
            suite=suite,
            index=index,
            name=task.name,
            instruction=task.language,
            bddl=package / "bddl_files" / name / task.bddl_file,
            init_states=package / "init_files" / name / task.init_states_file,
        )
        for index, task in enumerate(task_maps[name].values())
    ]


@cache
def init_states(path: Path) -> np.ndarray:
    """The fixed initial states of a task, float64 (50, 1 + nq + nv): time, qpos, qvel.

    The files are torch pickles of one numpy array;
    they are read with an allow-list, so nothing in them can run.
    """
    import codecs

    import torch

    # numpy 1.26 has an `_core`, too, but nothing in it
    core = np._core if hasattr(getattr(np, "_core", None), "multiarray") else np.core
    allowed: list = [
        (core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float64)),
        (codecs.encode, "_codecs.encode"),
    ]
    with torch.serialization.safe_globals(allowed):
        return np.asarray(torch.load(path, weights_only=True), np.float64)


def use_assets(path: Path | None) -> Path:
    """Tell the package where its meshes and textures are and return the folder;
    None: its own, else the hub.
    """
    import libero.libero as package

    if path is not None:
        if not path.is_dir():
            raise ValueError(NO_FOLDER.format(path=path))
        package._assets_path_cache = str(path.resolve())  # the `assets` of config.yaml is ignored
    return Path(package.get_assets_path())


@contextmanager
def missing_assets_explained(folder: Path) -> Any:
    """Turn the many errors about a file that cannot be opened into one sentence that names it."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        named = getattr(error, "filename", None) or next(
            iter(re.findall(r"'([^']+\.\w+)'", str(error))), None
        )
        if named is None or Path(named).exists():
            raise
        file = os.path.relpath(named, folder) if Path(named).is_relative_to(folder) else named
        raise ValueError(_NO_ASSETS.format(file=file, folder=folder)) from error
