"""A run folder opened from outside: its configuration, its environment's facts, its model.

The only place where the API and the server reach saved models.
"""

from __future__ import annotations

import sys
import typing
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from wamrl.config import Config
from wamrl.envs.base import EnvSpec
from wamrl.models.flow import SAMPLERS, FlowConfig, Sampler
from wamrl.models.saved import load_wam
from wamrl.models.wam import WAM
from wamrl.runs.demonstrations import env_spec
from wamrl.runtime.cores import device
from wamrl.runtime.files import config_difference, read_json
from wamrl.runtime.log import console, resolved

_CONFIG = "config.json"
_ADVICE = "name a run folder, or its checkpoints/base, best or final"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A model with what is known of it."""

    path: Path  # as it was named: a run folder, or a checkpoint folder in one
    config: Config
    spec: EnvSpec
    wam: WAM
    sampler: Sampler  # the one to act with

    @property
    def flow(self) -> FlowConfig:
        """How actions are denoised: as `evaluate` does it."""
        return self.config.flow.at(1.0)


def open_saved(path: Path, config: Config | None = None, sampler: Sampler | None = None) -> Saved:
    """The model of a run folder (`final`, else `base`) or of a checkpoint folder in one.

    config: of its recipe; None: as the run says. sampler: None: the deployed one, which
    `flow.deploy` or the model names. ValueError of one sentence where something is missing or
    does not fit.
    """
    config = config or read_config(path)
    if sampler is not None and sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is not possible: choose of {', '.join(SAMPLERS)}")
    spec = env_spec(config)
    wam = load_wam(config.model, spec, path, seed=config.seed, device=device())
    if sampler is None and config.flow.deploy != "auto":
        sampler = config.flow.deploy
    if sampler is None and wam.sampler is None:
        console.print("no evaluation has chosen this model's sampler yet: it acts by 'zero'")
    chosen = sampler or wam.sampler or "zero"
    return Saved(path=path, config=config, spec=spec, wam=wam.eval(), sampler=chosen)


def read_config(path: Path) -> Config:
    """The configuration of the run that `path` is or lies in, without its recipe.

    Classes are found by name in wamrl and in modules that are imported already, never by importing
    what a file names. ValueError of one sentence where that does not give what was saved.
    """
    places = (path, *path.resolve().parents[:2])
    folder = next((place for place in places if (place / _CONFIG).is_file()), None)
    if folder is None:
        raise ValueError(f"{path} is not in a run folder (there is no {_CONFIG}): {_ADVICE}")
    saved = read_json(folder / _CONFIG, "run folder", _ADVICE)
    try:
        config = _built(saved)
        fault = config_difference(saved, resolved(config), "config")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        fault = str(error)
    if fault is None and not isinstance(config, Config):
        fault = "it is not the configuration of a run"
    if fault is not None:
        raise ValueError(
            f"{folder / _CONFIG} does not say how the run was made ({fault}): give its recipe"
        )
    return config


def _built(value: Any) -> Any:
    """What `resolved` wrote, read back."""
    if isinstance(value, list):
        return tuple(_built(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "class" not in value:
        return {name: _built(item) for name, item in value.items()}
    kind = _config_class(str(value["class"]))
    hints = typing.get_type_hints(kind)
    given = {}
    for name in value.keys() - {"class"}:
        if name not in hints:
            raise ValueError(f"{kind.__name__} has no field {name!r} any more")
        given[name] = _of_type(hints[name], _built(value[name]))
    missing = [f.name for f in fields(kind) if f.name not in given]
    if missing:
        raise ValueError(f"{kind.__name__} has a field {missing[0]!r} by now")
    return kind(**given)


def _of_type(hint: Any, value: Any) -> Any:
    """Text where the field holds a path or a number that JSON has no word for."""
    kinds = typing.get_args(hint) or (hint,)
    if not isinstance(value, str) or str in kinds:
        return value
    if float in kinds:
        return float(value)
    return Path(value) if Path in kinds else value


def _config_class(name: str) -> type:
    """A configuration class by "module:name"; of ours, or of a module that is there already."""
    module, _, kind = name.partition(":")
    if module.startswith("wamrl."):
        import_module(module)
    elif module not in sys.modules:
        raise ValueError(f"import {module} first: {kind} is there, and no file may import it")
    found = getattr(sys.modules[module], kind)
    if not (isinstance(found, type) and is_dataclass(found) and kind.endswith("Config")):
        raise ValueError(f"{name} is not a configuration")
    return found
