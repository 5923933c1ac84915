"""Recipes and studies by name, and their smallest versions.

What there is, is read from the source: `wamrl list` needs no torch.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import wamrl.recipes

if TYPE_CHECKING:
    from wamrl.config import Config
    from wamrl.runs.record import RunRecord


@dataclass(frozen=True)
class Listed:
    """A recipe of ours."""

    module: str
    function: str
    summary: str  # the first line of its docstring

    def load(self) -> Callable:
        """The function itself."""
        return getattr(importlib.import_module(self.module), self.function)


def listed(kind: str = "Config") -> dict[str, Listed]:
    """Every public function of wamrl/recipes without parameters that returns a `kind` ("Config" or
    "StudyConfig"), under its name with dashes.
    """
    found = {}
    for info in pkgutil.iter_modules(wamrl.recipes.__path__):
        path = Path(wamrl.recipes.__path__[0]) / f"{info.name}.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if node.returns is None or ast.unparse(node.returns) != kind or _parameters(node):
                continue
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            name = node.name.replace("_", "-")
            found[name] = Listed(f"wamrl.recipes.{info.name}", node.name, summary)
    return found


def _parameters(node: ast.FunctionDef) -> bool:
    a = node.args
    return bool(a.posonlyargs or a.args or a.vararg or a.kwonlyargs or a.kwarg)


def recipes(kind: type | None = None) -> dict[str, Callable]:
    """Those of `listed`, themselves. kind: None means Config."""
    return {name: entry.load() for name, entry in listed(_name(kind)).items()}


def find_recipe(name: str, kind: type | None = None) -> Callable:
    """A function that returns a `kind` (None: a Config): one of ours by its name, or
    `module:function`, of an installed module or one in the current folder.
    """
    module, _, function = name.partition(":")
    if function:
        _look_here()
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import recipe {name}: {error}") from error
    known = listed(_name(kind))
    if name not in known:
        what = "study" if _name(kind) == "StudyConfig" else "recipe"
        raise ValueError(
            f"unknown {what} {name!r}: choose one of {', '.join(known)}, or give module:function"
        )
    return known[name].load()


def build(name: str, kind: type | None = None) -> Config:
    """The `kind` (None: Config) that a recipe returns; ValueError where it returns another thing.

    A study's recipe gives a StudyConfig.
    """
    from wamrl.config import Config

    found = find_recipe(name, kind)()
    if not isinstance(found, kind or Config):
        raise ValueError(f"recipe {name} returns a {type(found).__name__}, not a {_name(kind)}")
    return found


def build_recorded(record: RunRecord, run: Path, recipe: str = "") -> Config:
    """The configuration with which `run` was begun. recipe: its name, where the run does not know.

    A run that was begun from Python has no recipe: its classes must be ours then.
    ValueError of one sentence where the recipe is gone or another one, or lies beside the run:
    who is given a run shall not execute what came with it.
    """
    from wamrl.config import Config
    from wamrl.runs.carried import own_config

    name = record.recipe or recipe
    if ":" in name and not recipe:
        _require_harmless(name, run)
    try:
        kind = type(build(name)) if name else Config
        return own_config(kind, record.config, run)
    except ValueError as error:
        raise ValueError(
            f"cannot go on with {run}: {error}{'' if name else '; or name its recipe'}"
        ) from error


def build_saved(folder: Path) -> Config | None:
    """The configuration of its run that a model folder carries; None where it carries none.

    ValueError of one sentence where a class or a module of it is not loaded: none is imported
    because a file says so.
    """
    from wamrl.models.saved import about_model
    from wamrl.runs.carried import carried_config

    said = about_model(folder).get("run")
    if said is None:
        return None
    try:
        return carried_config(said)
    except ValueError as error:
        raise ValueError(
            f"{folder} does not say how its run was made ({error}): name its recipe"
        ) from error


def _require_harmless(name: str, run: Path) -> None:
    """ValueError unless the `module:function` that a file names is a recipe from elsewhere."""
    top = name.partition(":")[0].partition(".")[0]
    around = (run.resolve(), *run.resolve().parents)
    if any((root / top).resolve() in around for root in [Path.cwd(), *map(Path, sys.path)]):
        raise ValueError(
            f"{run} was made from recipe {name}, which lies around it: name it yourself, if you "
            "trust it"
        )
    returned = getattr(find_recipe(name), "__annotations__", {}).get("return")
    if getattr(returned, "__name__", returned) != "Config":
        raise ValueError(
            f"{run} was made from {name}, which does not say that it returns a Config "
            "(`-> Config`): name it yourself, if you trust it"
        )


def _name(kind: type | None) -> str:
    return "Config" if kind is None else kind.__name__


def _look_here() -> None:
    """The current folder may be imported from, after all else: as with `python -m`, but nothing
    that is installed is hidden by a file that happens to lie here.
    """
    if not sys.flags.safe_path and os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def smoke(cfg: Config) -> Config:
    """The same run, as short as it can be."""
    return replace(
        cfg,
        name=f"{cfg.name.removesuffix('-smoke')}-smoke",
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
