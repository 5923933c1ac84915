"""Recipes and studies by name, and their smallest versions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import replace

import wamrl.recipes
from wamrl.config import Config


def find_recipe(name: str, kind: type = Config) -> Callable:
    """A function that returns a `kind`: one of ours by its name, or `module:function`."""
    module, _, function = name.partition(":")
    if function:
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import recipe {name}: {error}") from error
    if name not in (known := recipes(kind)):
        what = "recipe" if kind is Config else "study"
        raise ValueError(
            f"unknown {what} {name!r}: choose one of {', '.join(known)}, or give module:function"
        )
    return known[name]


def recipes(kind: type = Config) -> dict[str, Callable]:
    """Every public function of wamrl/recipes that returns a `kind`, under its name with dashes."""
    found = {}
    for info in pkgutil.iter_modules(wamrl.recipes.__path__):
        module = importlib.import_module(f"wamrl.recipes.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if (
                inspect.signature(function).return_annotation in (kind, kind.__name__)
                and function.__module__ == module.__name__
            ):
                if not name.startswith("_") and not inspect.signature(function).parameters:
                    found[name.replace("_", "-")] = function
    return found


def smoke(cfg: Config) -> Config:
    """The same run, as short as it can be."""
    return replace(
        cfg,
        name=f"{cfg.name}-smoke",
        data=replace(cfg.data, episodes=4, heldout=2),
        sft=replace(cfg.sft, steps=20, warmup=5, batch=16),
        train=replace(
            cfg.train,
            iterations=2,
            groups=2,
            env_steps=0,
            initial_states=replace(cfg.train.initial_states, group=2),
            learner=cfg.train.learner.small(),
            world=replace(cfg.train.world, steps=2, batch=16),
        ),
        eval=replace(cfg.eval, episodes=4, choose=4, during=4),
        rewards=replace(cfg.rewards, states=4, group=2),
        pool=replace(cfg.pool, n_envs=4),
    )
