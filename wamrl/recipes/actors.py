"""The actors that `--model.actor NAME` puts into any recipe."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.base import ActorConfig
from wamrl.models.experts import BridgeConfig, PrefixConfig

ACTORS: dict[str, type[ActorConfig]] = {
    "head": ActionHeadConfig,
    "bridge": BridgeConfig,
    "prefix": PrefixConfig,
}


def with_actor(config: Config, name: str) -> Config:
    """The configuration with this actor, at its own defaults unless the recipe has it already.

    ValueError of one sentence where there is none of this name.
    """
    if name not in ACTORS:
        raise ValueError(
            f"--model.actor {name or '(nothing)'} is not possible: choose {', '.join(ACTORS)}; "
            "what it is made of are options like --model.actor.width"
        )
    if type(config.model.actor) is ACTORS[name]:
        return config
    return replace(config, model=replace(config.model, actor=ACTORS[name]()))
