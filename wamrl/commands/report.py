"""The verbs `report` and `compare`: what runs and studies have left, to look at.

Light to import: what is slow is imported when a verb is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Ge, Le

from wamrl.runtime.shown import Place

if TYPE_CHECKING:
    from wamrl.page.blocks import Table

PAGE = "report.html"
SHOWN = 40  # rows of a table on the terminal

Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN RUN ...", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `report`."""

    path: tyro.conf.Positional[Path]  # a run folder, or the folder of a study; finished or not
    html: Place = None  # where the page is written (default: report.html in that folder)
    # megabytes of videos that the page may carry
    video_mb: Annotated[float, Ge(0), Le(1000)] = 24.0


@dataclass(frozen=True, kw_only=True)
class CompareRunsOptions:
    """Options of `compare`."""

    runs: tyro.conf.Positional[Runs]  # two or more; the first is the reference
    html: Place = None  # also write a page, with learning curves

    def validate(self) -> None:
        """ValueError where there is nothing to compare."""
        if len(self.runs) < 2:
            raise ValueError(
                "give two run folders or more: the first is what the others are compared with"
            )


def report(o: ReportOptions) -> None:
    """Write the page of a run or of a study."""
    from wamrl import page
    from wamrl.runtime.log import console

    folder = page.RunFolder(_folder(o.path))
    study = page.is_study(o.path)
    found = page.study_page(folder) if study else page.run_page(folder, video_mb=o.video_mb)
    target = o.html or o.path / PAGE
    page.write_page(found, target)
    console.print(f"{found.lead}\npage -> {target}", markup=False)


def compare(o: CompareRunsOptions) -> None:
    """Print tables of runs side by side, and write them as a page if asked."""
    from wamrl import page
    from wamrl.runtime.log import console

    found = page.comparison([page.RunFolder(_folder(run)) for run in o.runs])
    if o.html is not None:  # first, so that nothing is said where it cannot be written
        page.write_page(page.compare_page(found), o.html)
    _print("success on held-out initial states", found.success)
    if found.paired.rows:
        _print("paired over the same initial states", found.paired)
    for note in found.notes:
        console.print(note, markup=False)
    if found.settings.rows:
        _print("settings that differ", found.settings)
    else:
        console.print("the runs have the same settings", markup=False)
    if o.html is not None:
        console.print(f"page -> {o.html}", markup=False)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: name a run folder or a study's")
    return path


def _print(title: str, table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as Drawn

    from wamrl.runtime.log import console

    drawn = Drawn(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in table.head:
        drawn.add_column(escape(column), overflow="fold")
    drawn.columns[0].no_wrap = table.code
    for row in table.rows[:SHOWN]:
        drawn.add_row(*map(_plain, row))
    console.print(drawn)
    if len(table.rows) > SHOWN:
        console.print(f"... and {len(table.rows) - SHOWN} more; --html FILE shows all")


def _plain(cell: str) -> str:
    """Text of a run folder as the terminal may have it: no markup, no control characters."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "?" for c in cell))
