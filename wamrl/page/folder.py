"""Reading a run folder that may come from anybody: nothing outside of it, nothing absurdly large,
and no number that is none.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 256_000_000
STUDY = "study.json"
_ADVICE = "name a folder that wamrl has written"


class RunFolder:
    """A run folder, or a study's. `refused`: sentences about what was there and was not read."""

    def __init__(self, path: Path) -> None:
        """ValueError if there is no folder at `path`."""
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder: name a run folder or a study's")
        self.path = path
        self.root = path.resolve()
        self.refused: list[str] = []

    @property
    def name(self) -> str:
        """As the folder itself is called."""
        return self.root.name

    def file(self, name: str) -> Path | None:
        """The file at `name`; None if there is none, or if it lies outside of the folder."""
        try:
            found = (self.root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte
            return None
        if not found.is_relative_to(self.root):
            self.refused.append(f"{name} leads out of the folder and was not read.")
            return None
        return found if found.is_file() else None

    def sub(self, name: str) -> RunFolder | None:
        """The folder in it of that name; None if there is none, or if it lies outside."""
        try:
            found = (self.root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        if not found.is_relative_to(self.root):
            self.refused.append(f"{name} leads out of the folder and was not read.")
            return None
        return RunFolder(found) if found.is_dir() else None

    def files(self, pattern: str) -> list[str]:
        """Names of the files that match a glob, in order, without those that lead out."""
        names = sorted(str(p.relative_to(self.root)) for p in self.root.glob(pattern))
        return [name for name in names if self.file(name) is not None]

    def text(self, name: str) -> str | None:
        """A text file; None if there is none. ValueError if it is absurdly large or no text."""
        path = self.file(name)
        if path is None:
            return None
        try:
            if path.stat().st_size > MAX_TEXT_BYTES:
                raise ValueError(f"it has more than {MAX_TEXT_BYTES // 1_000_000} MB")
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path / name} is not readable ({error}): {_ADVICE}") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None if there is no such file, ValueError of one sentence if it is none.
        NaN and infinity are None.
        """
        text = self.text(name)
        if text is None:
            return None
        try:
            found = json.loads(text, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path / name} is not readable ({error}): {_ADVICE}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{self.path / name} is no JSON object: {_ADVICE}")
        return found

    def rows(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl that have a step, with the numbers in them that are finite.

        A line that a crash has cut off, or that is something else, is left out.
        """
        found = []
        for line in (self.text("metrics.jsonl") or "").splitlines():
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                numbers = {key: number(value) for key, value in content.items()}
                known = {key: value for key, value in numbers.items() if value is not None}
                if "step" in known:
                    found.append(known)
        return found


def is_study(path: Path) -> bool:
    """Is it the folder of a study, and not of a run?"""
    return (path / STUDY).is_file()


def number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def flat(value: object, name: str = "") -> dict[str, str]:
    """A configuration as `config.json` has it: dotted name -> value as text, in its order.

    Of classes the name only: modules move.
    """
    if isinstance(value, dict):
        found = {}
        for key, part in value.items():
            where = f"{name}.{key}" if name else str(key)
            found |= {name: _class_name(part)} if name and key == "class" else flat(part, where)
        return found
    if isinstance(value, list):
        return {name: ", ".join(_plain(part) for part in value)}
    return {name: _plain(value)}


def _class_name(kind: object) -> str:
    return str(kind).rpartition(":")[2]


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
