"""A page as one HTML file that needs nothing else, and asks nobody for anything."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from wamrl.page.blocks import Page, Plot, Plots
from wamrl.page.plots import PALETTE
from wamrl.runtime.files import write_text

# how a word in a table looks
MARKS = {
    "supported": "good",
    "not supported": "bad",
    "undecided": "faint",
    "not tested": "faint",
    "missing": "faint",
    "not planned": "faint",
    "no finished pair": "faint",
    "not measured": "faint",
}
_PLACE = Path(__file__).parent
_EXTRA = "pages need Jinja2 and plotly: pip install -e '.[report]' in your clone of wamrl"


def write_page(page: Page, path: Path) -> None:
    """Write the page, all at once; ValueError of one sentence where that is not possible."""
    write_text(path, page_html(page))


def page_html(page: Page) -> str:
    """The page as text. Whatever a run folder said is escaped, and scripts run only with the
    page's own nonce; the content policy allows no request to anywhere.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ValueError(f"{_EXTRA} ({error})") from error
    environment = Environment(
        loader=FileSystemLoader(_PLACE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = replace(page, sections=[s for s in page.sections if s.blocks])
    plots = [plot for section in shown.sections for plot in _plots(section.blocks)]
    return environment.get_template("page.html.j2").render(
        page=shown,
        figures=[plot.figure for plot in plots],
        number={id(plot): i for i, plot in enumerate(plots)},
        id=id,
        marks=MARKS,
        palette=PALETTE,
        nonce=secrets.token_urlsafe(16),
        style=(_PLACE / "page.css").read_text(encoding="utf-8"),
        script=(_PLACE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs() if plots else "",
    )


def _plots(blocks: Any) -> list[Plot]:
    return [plot for block in blocks if isinstance(block, Plots) for plot in block.items]
