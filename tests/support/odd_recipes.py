"""A recipe with an odd environment, for the command line."""

from dataclasses import replace

from tests.support import tiny
from tests.support.odd_gym import slide
from wamrl.config import Config

MODE = "plain"


def odd() -> Config:
    """`Slide` in the mode MODE, and the smallest model."""
    return replace(tiny.CONFIG, name="odd", env=slide(MODE))
