"""Models made and kept: fresh from a seed, saved with their configuration, loaded if they fit.

A model checkpoint holds the resolved configuration, the weights, and how it is best deployed.
"""

from __future__ import annotations

from pathlib import Path

import torch

from wamrl.envs.base import EnvSpec
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.runtime import checkpoint
from wamrl.runtime.cores import fast_bfloat16
from wamrl.runtime.files import config_difference
from wamrl.runtime.log import resolved


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


def model_state(model: WAMConfig, wam: WAM) -> dict:
    """What a model checkpoint holds: its configuration, its weights, how it is best deployed."""
    return {"model": resolved(model), "wam": wam.state_dict(), "sampler": wam.sampler}


def save_wam(model: WAMConfig, wam: WAM, run: Path, name: str) -> Path:
    """Write the checkpoint `name` of a run folder; all ranks call it alike."""
    return checkpoint.save_named(run, name, model_state(model, wam))


def load_wam(model: WAMConfig, env: EnvSpec, path: Path, *, seed: int, device: str) -> WAM:
    """The model of a checkpoint folder, or of a run folder's `final` or `base`.

    seed: where torch's global random state begins, as by `build_wam`.
    ValueError where the checkpoint was made with another configuration.
    """
    folder = model_folder(path)
    state = checkpoint.load(folder)
    if "wam" not in state or "model" not in state:
        raise ValueError(
            f"{folder} is not a model checkpoint: "
            "name a run folder, or its checkpoints/base, best or final"
        )
    fault = config_difference(state["model"], resolved(model), "model")
    if fault is not None:
        raise ValueError(
            f"{folder} was made with another model ({fault}): use its recipe and options"
        )
    wam = build_wam(model, env, seed=seed, device=device)
    try:
        wam.load_state_dict(state["wam"])
    except RuntimeError as error:
        raise ValueError(
            f"{folder} does not fit the model ({str(error).splitlines()[-1].strip()})"
        ) from error
    wam.sampler = state.get("sampler")  # older ones do not say
    return wam


def model_folder(path: Path) -> Path:
    """The checkpoint folder that `path` is or, of a run folder, means."""
    for name in ("final", "base"):
        folder = path / "checkpoints" / name
        if folder.is_dir():
            return folder
    return path
