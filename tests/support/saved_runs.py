"""A run folder with a model that has learned nothing but does something, made in no time."""

from __future__ import annotations

from pathlib import Path

import torch

from wamrl.api.recipes import recipe
from wamrl.models.saved import save_wam
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.phases import fresh_model
from wamrl.runtime.log import new_run

TINY = {
    "model.world.width": 32,
    "model.world.depth": 2,
    "model.world.heads": 2,
    "model.world.taps": (1, 2),
    "model.actor.width": 32,
    "model.actor.heads": 2,
    "pool.n_workers": 1,
    "threads": 1,
}


def saved_run(root: Path, **changes) -> Path:
    """Of the recipe `point`; changes: dotted names with "__", as `model__history_offsets=(-2, 0)`.

    What starts at zero is random, so that features, imaginations and noise matter.
    """
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    config = recipe("point", TINY | dotted, small=True)
    wam = fresh_model(config)
    layers = [block.modulation for block in wam.actor.blocks]
    for layer in (wam.world.head, wam.actor.head, *layers):
        torch.nn.init.normal_(layer.weight, std=0.05)
    wam.sampler = "ode"
    run = new_run(root, "tiny", config)
    save_wam(config.model, env_spec(config), wam, run, "final", config=config)
    return run
