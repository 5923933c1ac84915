"""The same run with less memory, by options that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wamrl.config import Config


def alternatives(cfg: Config) -> dict[str, Config]:
    """The same run with less memory, by the options that make it so; what it has already is left
    out, all of them together come last."""
    world = cfg.model.world
    changes: dict[str, Callable[[Config], Config]] = {}
    if getattr(world, "recompute", None) is False:
        changes["--model.world.recompute True"] = lambda c: _with_world(c, recompute=True)
    if cfg.sft.microbatch != 1 or cfg.train.world.microbatch != 1:
        changes["--sft.microbatch 1 --train.world.microbatch 1"] = _in_small_passes
    batch = getattr(cfg.train.learner, "batch", 0)
    if batch > 32:
        changes["--train.learner.batch 32"] = _in_small_batches
    lora = getattr(world, "lora", None)
    if lora is not None and not lora.rank:
        adapters = replace(lora, rank=16)
        changes["--model.world.lora.rank 16"] = lambda c: _with_world(c, lora=adapters)
    found = {option: change(cfg) for option, change in changes.items()}
    if len(changes) > 1:
        together = cfg
        for change in changes.values():
            together = change(together)
        found[" ".join(changes)] = together
    return found


def sharded(cfg: Config) -> Config:
    """With weights over the ranks."""
    update = replace(cfg.train.world, shard=True)
    return replace(cfg, sft=replace(cfg.sft, shard=True), train=replace(cfg.train, world=update))


def _with_world(cfg: Config, **world: Any) -> Config:
    return replace(cfg, model=replace(cfg.model, world=replace(cfg.model.world, **world)))


def _in_small_passes(cfg: Config) -> Config:
    update = replace(cfg.train.world, microbatch=1)
    return replace(cfg, sft=replace(cfg.sft, microbatch=1), train=replace(cfg.train, world=update))


def _in_small_batches(cfg: Config) -> Config:
    learner = replace(cfg.train.learner, batch=32)
    return replace(cfg, train=replace(cfg.train, learner=learner))
