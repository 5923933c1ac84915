"""Configurations read back from the JSON that `runtime.log.resolved` makes of them, and compared.

A field that is younger than a file counts as its default: a new one's default is how it was before.
A file names classes, and no foreign class is imported because a file says so: it is one of wamrl's
or one that this program has loaded already, a subclass of what the field is declared to hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from wamrl.runtime.log import resolved

T = TypeVar("T")
_NUMBERS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


def restored(kind: type[T], saved: object, where: str) -> T:
    """The `kind` that `resolved` has written as `saved`. where: what it is called.

    ValueError of one sentence where it is none, or its class is not loaded.
    """
    found = _value(kind, saved, where)
    fault = config_difference(saved, resolved(found), where)
    if fault is not None:
        raise ValueError(f"it was written by another version: {fault}")
    return found


def config_difference(saved: object, mine: object, where: str) -> str | None:
    """The first place where two resolved configurations differ, in words; None if there is none.

    saved, mine, where: see `config_differences`.
    """
    for name, there, here in config_differences(saved, mine, where):
        return f"{name} is {there} there and {here} here"
    return None


def config_differences(
    saved: object, mine: object, where: str
) -> Iterator[tuple[str, object, object]]:
    """Every place where two resolved configurations differ: its name, what is there and here.

    saved, mine: as `log.resolved` gives them. where: what the outermost one is called.
    Classes ("module:name") are compared by their names: modules move.
    """
    if not isinstance(saved, dict) or not isinstance(mine, dict):
        if saved != mine:
            yield where, saved, mine
        return
    for key in sorted(saved.keys() | mine.keys()):
        there = saved.get(key)
        here = mine.get(key)
        moved = key == "class" and _class_name(there) == _class_name(here)
        younger = key not in saved and _is_default(mine, key)
        if not moved and not younger:
            yield from config_differences(there, here, f"{where}.{key}")


def _class_name(kind: object) -> str:
    """ "wamrl.models.wam_config:WAMConfig" -> "WAMConfig"."""
    return str(kind).rpartition(":")[2]


def _is_default(mine: dict, key: str) -> bool:
    """Has the field the value that its class gives it?"""
    module, _, name = str(mine.get("class")).partition(":")
    kind = sys.modules.get(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    for field in known:
        if field.name == key and field.default_factory is not dataclasses.MISSING:
            return resolved(field.default_factory()) == mine[key]
        if field.name == key:
            return resolved(field.default) == mine[key]
    return False


def _value(kind: Any, saved: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is tuple:
        return tuple(_items(typing.get_args(kind), saved, where))
    if origin in (Union, types.UnionType):
        return _first(typing.get_args(kind), saved, where)
    if origin is Literal and saved in typing.get_args(kind):
        return saved
    if isinstance(kind, type) and isinstance(saved, dict):
        return _dataclass(kind, saved, where)
    if kind is float and isinstance(saved, int | float | str) and not isinstance(saved, bool):
        return _NUMBERS[saved] if saved in _NUMBERS else float(saved)
    if kind in (bool, int, str, types.NoneType) and type(saved) is kind:
        return saved
    if kind is Path and isinstance(saved, str):
        return Path(saved)
    raise ValueError(f"{where} cannot be {saved!r}")


def _items(kinds: tuple, saved: Any, where: str) -> Iterator[Any]:
    if not isinstance(saved, list):
        raise ValueError(f"{where} cannot be {saved!r}")
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(saved)
    if len(kinds) != len(saved):
        raise ValueError(f"{where} has {len(saved)} parts instead of {len(kinds)}")
    for number, (kind, item) in enumerate(zip(kinds, saved, strict=True)):
        yield _value(kind, item, f"{where}.{number}")


def _first(kinds: tuple, saved: Any, where: str) -> Any:
    for kind in kinds:
        try:
            return _value(kind, saved, where)
        except ValueError as error:
            fault = error
    raise fault


def _dataclass(kind: type, saved: dict, where: str) -> Any:
    chosen = _loaded(kind, saved.get("class"), where)
    hints = typing.get_type_hints(chosen)
    names = {field.name for field in dataclasses.fields(chosen) if field.init}
    unknown = sorted(map(str, saved.keys() - names - {"class"}))
    if unknown:
        raise ValueError(f"{where} has {', '.join(unknown)}, which this wamrl does not know")
    values = {
        name: _value(hints[name], saved[name], f"{where}.{name}") for name in names & saved.keys()
    }
    try:
        return chosen(**values)
    except TypeError as error:  # one without a default is missing
        raise ValueError(f"{where} is incomplete: {error}") from error


def _loaded(kind: type, named: object, where: str) -> type:
    """The class that is called so ("module:name"; modules move), `kind` or one below it."""
    module, _, name = str(named).rpartition(":")
    if module.startswith("wamrl."):
        with contextlib.suppress(ImportError):  # of another version: the class may have moved
            importlib.import_module(module)
    same = [c for c in _below(kind) if c.__qualname__ == name and dataclasses.is_dataclass(c)]
    chosen = [c for c in same if c.__module__ == module] or same
    if len(chosen) != 1:
        raise ValueError(
            f"{where} is a {named}, which is not loaded: import {module or 'its module'} first, "
            "if you trust it"
        )
    return chosen[0]


def _below(kind: type) -> set[type]:
    return {kind}.union(*(_below(child) for child in kind.__subclasses__()))
