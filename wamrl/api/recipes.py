"""A recipe as users name it, and its configuration changed by dotted names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from wamrl.config import Config
from wamrl.recipes.find import find_recipe, smoke

# a name of `wamrl list`, "module:function", a function that returns a Config, or a Config
Recipe = str | Config | Callable[[], Config]


def as_config(recipe: Recipe) -> Config:
    """The validated configuration of a recipe; ValueError of one sentence."""
    if isinstance(recipe, str):
        recipe = find_recipe(recipe)
    config = recipe() if callable(recipe) else recipe
    if not isinstance(config, Config):
        raise ValueError(f"a recipe gives a Config, not a {type(config).__name__}")
    config.validate()
    return config


def recipe(
    name: Recipe, changes: Mapping[str, Any] | None = None, *, small: bool = False
) -> Config:
    """The configuration of a recipe.

    name: one of `wamrl list`, "module:function", a function or a Config. changes: by dotted names,
    `{"train.iterations": 1, "train.learner.lr": 1e-4}`. small: first as short as it can be, to see
    that everything works (`--smoke`). ValueError of one sentence for what is not possible.
    """
    config = as_config(name)
    if small:
        config = smoke(config)
    for where, value in (changes or {}).items():
        config = _changed(config, where.split("."), value, where)
    config.validate()
    return config


def _changed(part: Any, path: list[str], value: Any, where: str) -> Any:
    """`part` with the field at `path` replaced."""
    known = [f.name for f in fields(part)] if is_dataclass(part) else []
    if path[0] not in known:
        raise ValueError(
            f"there is no option {where!r}: {path[0]!r} is none of {', '.join(known) or 'nothing'}"
        )
    if len(path) > 1:
        value = _changed(getattr(part, path[0]), path[1:], value, where)
    return replace(part, **{path[0]: value})
