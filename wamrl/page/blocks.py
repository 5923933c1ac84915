"""What a page is made of. Everything here is text or plain JSON; the template escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A large number with what it is."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Some of them in a row."""

    kind: ClassVar[str] = "numbers"
    items: tuple[Number, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text in rows; the first column names the row."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    code: bool = False  # names and values as they are typed: in a fixed-width font


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a plot's legend, which stands above it in the page's own type."""

    label: str
    colour: str  # a name of `plots.PALETTE`
    mark: Literal["line", "dashed", "dot", "band", "hollow", "cross"] = "line"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of the plotting library, as JSON, in which a colour is `@name` or `@name/opacity`
    of `plots.PALETTE`.
    """

    title: str
    figure: dict[str, Any]
    keys: tuple[Key, ...] = ()
    note: str = ""
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Plots:
    """Some of them side by side, as far as there is room."""

    kind: ClassVar[str] = "plots"
    items: tuple[Plot, ...]


@dataclass(frozen=True, kw_only=True)
class Video:
    """A film in the page."""

    title: str
    detail: str
    outcome: Literal["success", "failure", ""]
    data: str  # MP4, base64
    fps: float
    frames: int
    width: int  # pixels
    height: int


@dataclass(frozen=True, kw_only=True)
class Videos:
    """A gallery."""

    kind: ClassVar[str] = "videos"
    items: tuple[Video, ...]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks that are shown when asked for."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Block]


Block = Text | Numbers | Table | Plots | Videos | Folded


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is below it. Without blocks it is left out."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is written as one HTML file."""

    title: str
    kicker: str  # what kind of thing this is, in few words
    lead: str  # what it shows, in a sentence
    sections: Sequence[Section]
