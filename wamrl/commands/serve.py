"""The verb `serve`: a model over websockets, for openpi's client and robots far away.

No torch here before it is called: `--help` shows the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from wamrl.runtime.shown import Word
from wamrl.serve.config import ServerConfig


@dataclass(frozen=True, kw_only=True)
class ServeOptions(ServerConfig):
    """Options of `serve`."""

    run: tyro.conf.Positional[Path]  # a run folder, a model folder, or hf://owner/name
    # how actions are denoised; saved: as the model is best deployed
    sampler: Literal["saved", "explore", "ode", "zero"] = "saved"
    recipe: Word = ""  # only where the run cannot say how it was made


def serve(o: ServeOptions) -> None:
    """Serve the model of a run until SIGINT or SIGTERM."""
    try:
        from wamrl.serve.server import PolicyServer
    except ModuleNotFoundError as error:
        raise ValueError(
            f"serve needs the package {error.name}: pip install websockets msgpack"
        ) from error
    import torch

    from wamrl.hub.repo import local
    from wamrl.recipes.find import find_recipe
    from wamrl.serve.saved import open_saved

    # Only the server's own thread computes: a second pool of OpenMP's threads, of this one, would
    # keep both from spinning, and a decision takes four times as long (LOG.md, 2026-11-27).
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    config = find_recipe(o.recipe)() if o.recipe else None
    saved = open_saved(local(o.run), config, None if o.sampler == "saved" else o.sampler)
    PolicyServer(saved, o, threads=saved.config.threads or usual).run()
