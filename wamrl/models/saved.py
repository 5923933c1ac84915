"""Models made and kept: fresh from a seed, saved with their configuration, loaded if they fit.

A model is a folder that needs nothing else, plain JSON and safetensors:

    config.json         the model's and the environment's configuration, how it is best deployed,
                        and the whole configuration of its run
    model.safetensors   the weights, by their names in `WAM.state_dict`
    manifest.json       sha256 of both
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wamrl.envs.base import EnvSpec
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.cores import fast_bfloat16
from wamrl.runtime.files import check_folder, read_json, shared_folder
from wamrl.runtime.log import read_config, resolved
from wamrl.runtime.restore import config_difference, restored
from wamrl.types import SAMPLERS

FORMAT = "wamrl-model"
VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_ADVICE = "name a run folder, its checkpoints/base, best, final or step-*, or hf://OWNER/NAME"
# What people put beside a model where they publish it; it is never opened.
_DOCUMENTS = re.compile(r"\..+|LICENSE|.+\.(md|txt|png|jpe?g|gif|webp|mp4)")


def build_wam(model: WAMConfig, env: EnvSpec, *, seed: int, device: str) -> WAM:
    """A fresh model for an environment. torch's global random state begins at the seed.

    ValueError where the device is slow at `model.compute`, or the parts do not fit together.
    """
    if model.compute == "bfloat16" and not fast_bfloat16(device):
        raise ValueError(
            "model.compute=bfloat16 needs a GPU or a CPU with AMX: on others it is several times "
            "slower; use float32"
        )
    torch.manual_seed(seed)
    wam = model.build(
        views=len(env.views),
        image_hw=env.image_hw,
        action_dim=env.action_dim,
        proprio_dim=env.proprio_dim,
        bounds=env.bounds,
    )
    return wam.to(device)


def save_wam(
    model: WAMConfig,
    env: EnvSpec,
    wam: WAM,
    run: Path,
    name: str,
    *,
    config: object | None = None,
    **more: float,
) -> Path:
    """Write the model `name` of a run folder; all ranks call it alike.

    env: the environment that it acts in. config: the run's whole configuration, by which the folder
    says how actions are denoised and in what environment; None: it stays unsaid, and whoever takes
    the folder out of its run needs the recipe. more: numbers to be found in its config.json.
    """
    path = run / "checkpoints" / name
    weights = sharding.whole(wam.state_dict())
    odd = [key for key, value in weights.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ValueError(f"cannot save the model: {odd[0]} of its state_dict is no tensor")
    if bad := _not_finite(weights):
        raise FloatingPointError(f"cannot save the model: {bad} is not finite")
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": resolved(model),
        "env": resolved(env),
        "sampler": wam.sampler,
        **more,
    }
    if config is not None:
        about["run"] = resolved(config)
    with shared_folder(path) as draft:
        if dist.is_main():
            text = json.dumps(about, indent=1, allow_nan=False)
            (draft / CONFIG).write_text(text + "\n", encoding="utf-8")
            checkpoint.save_tensors(weights, draft / WEIGHTS)
    return path


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model that needs no recipe: all is in its folder."""

    wam: WAM
    config: WAMConfig
    env: EnvSpec  # the environment that it was made for
    folder: Path


def load_model(path: Path, *, device: str = "cpu") -> SavedModel:
    """The model of a model folder, or of a run folder (see `model_folder`), made from what is
    written there. torch's global random state begins anew.

    ValueError of one sentence where it is damaged, where a class of its configuration is not
    loaded (nothing is imported because a file says so), and for models of before they were
    self-contained, which need their recipe: `load_wam`.
    """
    folder = model_folder(path)
    state = load_state(folder)
    if state.get("env") is None:
        raise ValueError(
            f"{folder} does not say what it was made for: give its recipe, as in "
            f"`wamrl eval RECIPE --base {path}`"
        )
    try:
        config = restored(WAMConfig, state["model"], "model")
        env = restored(EnvSpec, state["env"], "env")
    except ValueError as error:
        raise ValueError(f"{folder} cannot be rebuilt: {error}") from error
    wam = build_wam(config, env, seed=0, device=device)
    _fill(wam, state, folder)
    return SavedModel(wam=wam, config=config, env=env, folder=folder)


def load_wam(model: WAMConfig, env: EnvSpec, path: Path, *, seed: int, device: str) -> WAM:
    """The model of a model folder, of a step checkpoint, or of a run folder (see `model_folder`).

    seed: where torch's global random state begins, as by `build_wam`.
    ValueError where it was made with another configuration.
    """
    folder = model_folder(path)
    state = load_state(folder)
    fault = config_difference(state["model"], resolved(model), "model")
    if fault is not None:
        raise ValueError(
            f"{folder} was made with another model ({fault}): use its recipe and options"
        )
    wam = build_wam(model, env, seed=seed, device=device)
    _fill(wam, state, folder)
    return wam


def load_state(folder: Path) -> dict[str, Any]:
    """What a model folder holds: "model" (its resolved configuration), "env" (None: not known),
    "sampler", "wam" (its weights, on the CPU) and more. Checkpoints of before there were model
    folders, and of the online loop, say the same.

    ValueError of one sentence if there is no model or it is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no model at {folder}: {_ADVICE}")
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return _read(folder)
    state = checkpoint.load(folder)
    if "wam" not in state or "average" in state and "frozen" not in state:
        raise ValueError(f"{folder} is not a model checkpoint: {_ADVICE}")
    if "model" not in state:  # of the online loop: its run knows
        state["model"] = read_config(folder.parents[1]).get("model")
    return {"env": None, "sampler": None} | state  # older ones do not say


def about_model(folder: Path) -> dict[str, Any]:
    """What a model folder says beside its weights, which are not read: "model", "env", "sampler",
    "run" (the whole configuration; older ones do not say) and more. Empty where it is none.

    ValueError of one sentence if its config.json is damaged.
    """
    if not (folder / CONFIG).is_file():
        return {}
    found = read_json(folder / CONFIG, "model", _ADVICE)
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def model_folder(path: Path) -> Path:
    """The folder of the model that `path` means: of a run folder `final`, of one that is not
    finished its newest step checkpoint, of one without any `base`; else `path` itself.

    ValueError of one sentence if a run folder has none.
    """
    path = Path(path)
    found = path / "checkpoints"
    if not found.is_dir():
        return path
    for folder in (found / "final", *checkpoint.steps(path)[-1:], found / "base"):
        if folder.is_dir():
            return folder
    raise ValueError(f"{path} holds no model yet: finish its fine-tuning with --resume {path}")


def check_model(folder: Path) -> None:
    """ValueError of one sentence unless it is a model folder whose files are what was saved.
    Documents may lie beside them.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no model of wamrl ({name} is missing): {_ADVICE}")
    check_folder(folder, "model", _ADVICE, beside=_DOCUMENTS)


def _read(folder: Path) -> dict[str, Any]:
    check_model(folder)
    config = read_json(folder / CONFIG, "model", _ADVICE)
    if not isinstance(config, dict) or config.get("format") != FORMAT or "model" not in config:
        raise ValueError(f"{folder / CONFIG} is not that of a model of wamrl: {_ADVICE}")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{folder} has version {config.get('version')}, this wamrl reads version {VERSION}: "
            f"{_ADVICE}"
        )
    try:
        return config | {"wam": load_file(folder / WEIGHTS)}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is not readable ({error}): {_ADVICE}") from error


def _not_finite(weights: dict[str, torch.Tensor]) -> str:
    """The name of the first tensor that holds NaN or infinity, "" if there is none."""
    return next((name for name, value in weights.items() if not value.isfinite().all()), "")


def _fill(wam: WAM, state: dict, folder: Path) -> None:
    sampler = state["sampler"]
    try:
        wam.load_state_dict(state["wam"])
        if bad := _not_finite(state["wam"]):
            raise ValueError(f"{bad} is not finite")
        if sampler is not None and sampler not in SAMPLERS:
            raise ValueError(f"sampler {sampler!r} is none of {', '.join(SAMPLERS)}")
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder} does not fit the model ({str(error).splitlines()[-1].strip()})"
        ) from error
    wam.sampler = sampler
