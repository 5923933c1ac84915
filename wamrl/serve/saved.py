"""A run or model folder opened from outside: its configuration, its environment's facts, its model.

The only place where the API and the server reach saved models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wamrl.config import Config
from wamrl.envs.base import EnvSpec
from wamrl.models.flow import FlowConfig
from wamrl.models.saved import about_model, load_wam, model_folder
from wamrl.models.wam import WAM
from wamrl.runs.carried import carried_config, own_config
from wamrl.runs.demonstrations import env_spec
from wamrl.runtime.cores import device
from wamrl.runtime.files import read_json
from wamrl.runtime.log import console
from wamrl.runtime.restore import restored
from wamrl.types import SAMPLERS, Sampler

_CONFIG = "config.json"
_ADVICE = "name a run folder, its checkpoints/base, best or final, or hf://OWNER/NAME"


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
    """The model of a run folder (`final`, else `base`), of a checkpoint folder in one, or of a
    model folder that was taken out of its run.

    config: of its recipe; None: as the run says, and no simulator is needed. sampler: None: the
    deployed one, which `flow.deploy` or the model names. ValueError of one sentence where something
    is missing or does not fit.
    """
    known = None if config is None else env_spec(config)
    config = config or read_config(path)
    if sampler is not None and sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is not possible: choose of {', '.join(SAMPLERS)}")
    spec = known or _saved_spec(path) or env_spec(config)
    wam = load_wam(config.model, spec, path, seed=config.seed, device=device())
    if sampler is None and config.flow.deploy != "auto":
        sampler = config.flow.deploy
    if sampler is None and wam.sampler is None:
        console.print("no evaluation has chosen this model's sampler yet: it acts by 'zero'")
    chosen = sampler or wam.sampler or "zero"
    return Saved(path=path, config=config, spec=spec, wam=wam.eval(), sampler=chosen)


def _saved_spec(path: Path) -> EnvSpec | None:
    """The environment that a model was made for, as its folder says; older ones do not."""
    folder = model_folder(path)
    said = about_model(folder).get("env")
    try:
        return None if said is None else restored(EnvSpec, said, "env")
    except ValueError as error:
        raise ValueError(f"{folder} does not say what it was made for ({error})") from error


def read_config(path: Path) -> Config:
    """The configuration of the run that `path` is or lies in, or that a model folder carries,
    without its recipe.

    No module but wamrl's is imported because a file names it. ValueError of one sentence where what
    is there does not give what was saved.
    """
    run = _run_folder(path)
    about = about_model(path)
    if run is None and not about:
        raise ValueError(f"{path} is not in a run folder (there is no {_CONFIG}): {_ADVICE}")
    if run is None and "run" not in about:
        raise ValueError(f"{path} does not say how its run was made: give its recipe")
    try:
        if run is None:
            return carried_config(about["run"])
        return own_config(Config, read_json(run / _CONFIG, "run folder", _ADVICE), run)
    except ValueError as error:
        place = (run or path) / _CONFIG
        raise ValueError(
            f"{place} does not say how the run was made ({error}): give its recipe"
        ) from error


def _run_folder(path: Path) -> Path | None:
    """The run folder that `path` is or lies in, if any."""
    whole = path.resolve()
    place = whole.parents[1] if whole.parent.name == "checkpoints" else path
    found = (place / _CONFIG).is_file() and not about_model(place)
    return place if found else None
