"""The commands that README.md and docs/*.md show, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"```(?:bash|sh)\n(.*?)```|(?<!`)`(wamrl [a-z-]+ [^`]+)`(?!`)", re.S)
OPTION_ALONE = re.compile(r"wamrl \S+ --[a-z]+")


def commands_of(page: Path) -> list[str]:
    """Of shell blocks, and commands within a sentence that name a verb and more than an option."""
    found = []
    for block, span in SHOWN.findall(page.read_text(encoding="utf-8")):
        if block:
            found += _lines(block)
        elif not OPTION_ALONE.fullmatch(span):
            found.append(" ".join(span.split()))
    return list(dict.fromkeys(found))


def _lines(block: str) -> list[str]:
    """Continued lines joined, without comments, one command each."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        found += re.sub(r"(^|\s)#.*", "", line).split("&&")
    return [" ".join(command.split()) for command in found if command.strip()]
