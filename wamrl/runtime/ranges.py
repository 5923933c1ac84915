"""The range of every number of a config stands where the number is declared.

    lr: LearningRate = 1e-4
    clip: Annotated[float, Gt(0), Lt(1)] = 0.2

`check_ranges` holds a whole config to them. What relates several fields is said by `validate`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt

COMPARISONS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}

# Upper ends are there to catch a slipped digit or a unit before it takes all memory.
Count = Annotated[int, Ge(1), Le(10_000_000)]
CountOrZero = Annotated[int, Ge(0), Le(10_000_000)]  # where 0 has a meaning of its own
Processes = Annotated[int, Ge(0), Le(4096)]  # 0: by the cores of the machine
Steps = Annotated[int, Ge(1), Le(1000)]  # of denoising, or passes over the same data
Size = Annotated[int, Ge(1), Le(65_536)]  # of a layer or a batch
Pixels = Annotated[int, Ge(8), Le(4096)]  # a side of a picture
Seed = Annotated[int, Ge(0), Lt(2**32)]  # numpy takes no more
Fraction = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]  # of a running average; at 1 it would never move
LearningRate = Annotated[float, Gt(0), Le(1)]
Positive = Annotated[float, Gt(0), Le(1e9)]
NotNegative = Annotated[float, Ge(0), Le(1e9)]


def check_ranges(config: Any, option: str = "") -> None:
    """ValueError that names the first number which is not finite or outside its range.

    config: a dataclass; its fields that are dataclasses, and tuples of them, are looked at too.
    option: what to call it, such as "train.learner"; fields are named after it.
    """
    try:
        hints = get_type_hints(type(config), include_extras=True)
    except NameError:  # a class inside a function: its annotations name what only that one sees
        hints = {}
    for field in fields(config):
        name = f"{option}.{field.name}" if option else field.name
        limits = list(_limits(hints.get(field.name)))
        for value in _leaves(getattr(config, field.name)):
            if is_dataclass(value):
                check_ranges(value, name)
            else:
                _check(name, value, limits)


def _check(name: str, value: float, limits: list[Any]) -> None:
    asked = []
    met = math.isfinite(value)
    for limit in limits:
        sign, attribute = COMPARISONS[type(limit)]
        bound = getattr(limit, attribute)
        asked.append(f"{sign} {bound}")
        met = met and getattr(operator, attribute)(value, bound)
    if not met:
        wanted = " and ".join(asked) or "that is finite"
        raise ValueError(f"{name}={value} is not possible: give a number {wanted}")


def _limits(hint: Any) -> Iterator[Any]:
    """All limits in a type, those of its parts too: `Count | None`, `tuple[Count, ...]`."""
    if get_origin(hint) is Annotated:
        yield from (m for m in hint.__metadata__ if isinstance(m, BaseMetadata))
    for part in get_args(hint):
        yield from _limits(part)


def _leaves(value: Any) -> Iterator[Any]:
    """The numbers and dataclasses in a value, a tuple's one by one."""
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif is_dataclass(value) or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield value
