"""A small world model that remembers, before the actor of `tiny`; an episode has five decisions."""

from __future__ import annotations

from dataclasses import replace

from examples.own_memory.causal import CausalConfig
from tests.support import tiny

WORLD = CausalConfig(width=16, depth=2, heads=2, patch=8)
MODEL = replace(tiny.MODEL, world=WORLD)
# of which the first decisions are forgotten in the end
SHORT = replace(tiny.MODEL, world=replace(WORLD, past=2))
