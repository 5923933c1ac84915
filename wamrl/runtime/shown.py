"""Types of options that may be left open. `--help` shows no default for them: their comments say
what happens then. No torch here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

Place = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Whole = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Word = Annotated[str, tyro.conf.arg(help_behavior_hint="")]
Words = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="")]
