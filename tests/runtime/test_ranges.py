"""Numbers in configs: each has a range, and none outside it gets any further."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, get_args, get_type_hints

import pytest
from annotated_types import Ge, Lt
from hypothesis import given, settings
from hypothesis import strategies as st

from wamrl.data.demos import DemoConfig
from wamrl.envs.point import PointConfig
from wamrl.recipes.find import recipes
from wamrl.rewards.features import DINOv2Config, VJEPA2Config
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.runtime.ranges import COMPARISONS, Count, Fraction, check_ranges
from wamrl.study import StudyConfig

RECIPES = {name: recipe() for name, recipe in recipes().items()}
STUDIES = {name: recipe() for name, recipe in recipes(StudyConfig).items()}
OTHERS = {c.__name__: c() for c in (GRPOConfig, DINOv2Config, VJEPA2Config, OpticalFlowConfig)}
OTHERS["DemoConfig"] = DemoConfig(env=PointConfig())
ALL = RECIPES | STUDIES | OTHERS


@dataclass(frozen=True)
class Inner:
    share: Fraction = 0.5


@dataclass(frozen=True)
class Outer:
    steps: Count | None = 1
    bounds: tuple[Annotated[int, Ge(-2), Lt(2)], ...] = (0, 1)
    free: float = 1.0
    flag: bool = False
    inner: Inner = Inner()
    more: tuple[Inner, ...] = field(default=(Inner(), Inner()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "o.steps=0 is not possible: give a number >= 1 and <= 10000000"),
        ({"steps": math.nan}, "o.steps=nan"),
        ({"bounds": (1, 2)}, "o.bounds=2 is not possible: give a number >= -2 and < 2"),
        ({"free": math.inf}, "o.free=inf is not possible: give a number that is finite"),
        ({"inner": Inner(share=1.1)}, "o.inner.share=1.1"),
        ({"more": (Inner(), Inner(share=-0.1))}, "o.more.share=-0.1"),
    ],
)
def test_the_sentence_names_the_option_the_value_and_the_range(change, said):
    with pytest.raises(ValueError) as error:
        check_ranges(replace(Outer(), **change), "o")
    assert str(error.value).startswith(said)


def test_what_lies_within_passes():
    check_ranges(Outer(), "o")
    check_ranges(replace(Outer(), steps=None, bounds=(), flag=True, inner=Inner(share=1)), "o")


def numbers(config, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every field of a config whose type has numbers, with that type."""
    hints = get_type_hints(type(config), include_extras=True)
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from numbers(value, (*path, f.name))
        elif "int" in str(f.type) or "float" in str(f.type) or has_range(hints[f.name]):
            if not str(f.type).startswith(("Literal", "tuple[tuple[str, bool")):
                yield (*path, f.name), hints[f.name]


def has_range(hint: object) -> bool:
    marks = getattr(hint, "__metadata__", ())
    return any(type(m) in COMPARISONS for m in marks) or any(map(has_range, get_args(hint)))


@pytest.mark.parametrize("name", ALL)
def test_every_number_has_a_range_and_the_defaults_lie_within(name):
    bare = [".".join(path) for path, hint in numbers(ALL[name]) if not has_range(hint)]
    assert not bare, f"no range for {bare}"
    check_ranges(ALL[name])


def changed(config, path: tuple[str, ...], value):
    name, *rest = path
    return replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_mutated_configuration_is_refused_by_name(data):
    """One number of a recipe becomes what no range holds."""
    config = RECIPES[data.draw(st.sampled_from(sorted(RECIPES)))]
    path, hint = data.draw(st.sampled_from(list(numbers(config))))
    value = data.draw(st.sampled_from([math.nan, math.inf, -math.inf, -1e30, 10**30]))
    if str(hint).startswith("tuple"):
        value = (value,)
    with pytest.raises(ValueError, match=rf"^{'.'.join(path)}=.* is not possible"):
        changed(config, path, value).validate()
