"""What is believed of a configuration that came with a folder, perhaps from somebody else.

Classes are never imported because a file names them, see `runtime.restore`.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from wamrl.config import Config
from wamrl.runtime.restore import restored

_OURS = ("gym_pusht",)  # what an extra of wamrl brings may be imported
T = TypeVar("T", bound=Config)


def own_config(kind: type[T], said: object, run: Path) -> T:
    """Of a run folder, which one means to go on with: its simulator may import modules, but none
    that came with the folder. ValueError of one sentence.
    """
    config = restored(kind, said, "config")
    for module in config.env.imports:
        found = importlib.util.find_spec(module.partition(".")[0])
        if found is not None and Path(found.origin or "").resolve().is_relative_to(run.resolve()):
            raise ValueError(f"its environment imports {module}, which lies in the run itself")
    return config


def carried_config(said: object) -> Config:
    """Of a model folder without its run: no module that is not loaded yet is imported, and no
    cluster of simulators connected to.

    ValueError of one sentence, also where a value is not possible.
    """
    config = restored(Config, said, "config")
    config.validate()
    strange = [name for name in config.env.imports if name not in (*sys.modules, *_OURS)]
    if strange:
        raise ValueError(
            f"its environment imports {strange[0]}: import that yourself first, if you trust it"
        )
    return replace(config, pool=replace(config.pool, backend="processes", ray_address="auto"))
