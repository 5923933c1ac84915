"""The configuration that a model folder carries: perhaps somebody else's, so less is believed."""

from __future__ import annotations

import sys
from dataclasses import replace

from wamrl.config import Config
from wamrl.runtime.restore import restored

_OURS = ("gym_pusht",)  # what an extra of wamrl brings may be imported


def carried_config(said: object) -> Config:
    """What `resolved` wrote, without the cluster that it would connect to.

    ValueError of one sentence where a class of it is not loaded, a value is not possible, or its
    simulator would import a module because a field names it.
    """
    config = restored(Config, said, "config")
    config.validate()
    strange = [name for name in config.env.imports if name not in (*sys.modules, *_OURS)]
    if strange:
        raise ValueError(
            f"its environment imports {strange[0]}: import that yourself first, if you trust it"
        )
    return replace(config, pool=replace(config.pool, backend="processes", ray_address="auto"))
