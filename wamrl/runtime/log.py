"""The run folder, metrics and progress: what a run leaves behind, and what one sees while it goes.

    runs/NAME-YYYYMMDD-HHMMSS/
      config.json      the resolved configuration, recursively, with class names
      metrics.jsonl    one line per `log`: {"step", "seconds", metric: number or null}
      tensorboard/     the same for `tensorboard --logdir runs`, see trackers.py for others

Example:
    with Logger(new_run("runs", "quickstart", config)) as logger, bar("training", 100) as advance:
        for step in range(100):
            logger.log(step, {"train/loss": 0.3}); advance(1)
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wamrl.runtime import heartbeat
from wamrl.runtime.files import read_json, write_text, writing
from wamrl.runtime.trackers import DEFAULT, open_trackers

T = TypeVar("T")
_METRICS = "metrics.jsonl"
_CONFIG = "config.json"
_LINE_EVERY_S = 10.0  # seconds between progress lines where nobody sees a bar
console = Console(highlight=False, soft_wrap=True)
_shown: list[Progress] = []  # the bar on the terminal, if any


def new_run(
    root: Path | str, name: str, config: object, also: Mapping[str, str] | None = None
) -> Path:
    """Make root/name-<time>, never one that exists, and write the configuration into it; last,
    since with it the folder is a run. also: name and content of files that come before.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        path = Path(root) / (f"{name}-{stamp}" if attempt == 1 else f"{name}-{stamp}-{attempt}")
        try:
            with writing(path):
                path.mkdir(parents=True)
        except ValueError as error:
            if isinstance(error.__cause__, FileExistsError):
                continue
            raise
        try:
            texts = {**(also or {}), _CONFIG: json.dumps(resolved(config), indent=1)}
            for file, text in texts.items():
                write_text(path / file, text)
            return path
        except ValueError:
            shutil.rmtree(path)  # nothing half-made is left
            raise
    raise ValueError(f"{root} holds a thousand runs named {name}-{stamp}: choose another name")


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved configuration of a run; ValueError of one sentence if it is no run folder, or
    the file is damaged or somebody else's.
    """
    advice = "give a run folder that wamrl has made"
    found = read_json(Path(run_dir) / _CONFIG, "run folder", advice)
    if not isinstance(found, dict) or not isinstance(found.get("train"), dict):
        raise ValueError(f"{run_dir}/{_CONFIG} is not the configuration of a run: {advice}")
    return found


def resolved(value: Any) -> Any:
    """A configuration as plain JSON:
    dataclasses with their class names, functions as "module:name".
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"class": kind} | {
            f.name: resolved(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(k): resolved(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [resolved(v) for v in value]
    if isinstance(value, enum.Enum):
        return resolved(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return str(value)


class Logger:
    """Writes metrics of one run folder.
    To resume, give the last step that counts: later lines are moved aside. trackers: see
    `wamrl.runtime.trackers`.

    Only the first rank writes.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        resume_step: int | None = None,
        trackers: Sequence[str] = DEFAULT,
    ) -> None:
        self.path = Path(run_dir)
        if not (self.path / _CONFIG).is_file():
            raise ValueError(
                f"{run_dir} is not a run folder (no {_CONFIG}): name one that `wamrl` has made"
            )
        # seconds of the run before this process; its start
        self._before = 0.0
        self._begin = time.monotonic()
        self._files = contextlib.ExitStack()
        from wamrl.runtime import dist  # torch, which those who only print do without

        self._writes = dist.is_main()
        if not self._writes:
            return
        if resume_step is not None:
            self._before = _rewind(self.path / _METRICS, resume_step)
        opened = open_trackers(self.path, trackers, resume_step)
        self._trackers = self._files.enter_context(opened)
        with writing(self.path / _METRICS):
            file = open(self.path / _METRICS, "a", encoding="utf-8")
            self._file = self._files.enter_context(file)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, those before a resume included."""
        return self._before + time.monotonic() - self._begin

    def log(self, step: int, metrics: dict[str, Any], line: str = "") -> None:
        """Write numbers (0-dim tensors too) of one step;
        NaN and infinity become null. `line` goes to the console.
        """
        if not self._writes:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        row = {"step": step, "seconds": round(self.seconds, 3)} | finite
        with writing(self.path / _METRICS):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        known = {name: value for name, value in finite.items() if value is not None}
        self._trackers.log(step, known)
        if line:
            console.print(line, markup=False)

    def close(self) -> None:
        """Close metrics.jsonl and the trackers."""
        self._files.close()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a crash has cut off is left out."""
    path = Path(run_dir) / _METRICS
    rows = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(text))
    return rows


def _rewind(path: Path, step: int) -> float:
    """Keep the lines up to `step`, add the others to metrics-dropped.jsonl;
    the seconds of the last line kept.
    """
    rows = read_metrics(path.parent)
    kept = [r for r in rows if r["step"] <= step]
    dropped = [r for r in rows if r["step"] > step]
    if dropped:
        with open(path.with_stem("metrics-dropped"), "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in dropped)
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
    return kept[-1]["seconds"] if kept else 0.0


def summary_line(title: str, metrics: dict[str, Any]) -> str:
    """One console line: `title  name 0.123  name 4`."""
    return "  ".join([title, *(f"{name} {float(value):.4g}" for name, value in metrics.items())])


def decorative(what: str) -> Callable[[Callable], Callable]:
    """Mark a function that makes something to look at, such as a video: when it fails, the run goes
    on and the console says what is missing. It returns None then.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def guarded(*arguments, **options):
            try:
                return function(*arguments, **options)
            except Exception as error:
                reason = str(error).strip() or type(error).__name__
                console.print(f"note: no {what} ({reason}); the run goes on", markup=False)
                return None

        return guarded

    return decorate


@contextlib.contextmanager
def bar(
    description: str, total: int, done: int = 0, ranks: int = 1
) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`. A bar with the time left on a terminal;
    elsewhere a line every ten seconds. done: of `total`, before this process began. ranks: that
    have an even share each, so that what this one has done stands for all. Other ranks count it as
    progress.
    """
    with _shown_bar(description, total, done) as show:

        def advance(n: int = 1) -> None:
            heartbeat.tick()
            show(n * ranks)

        yield advance


@contextlib.contextmanager
def _shown_bar(description: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    if not console.is_terminal:
        yield _Lines(description, total, done).advance
        return
    if _shown:  # a bar within a bar: one more row
        task = _shown[0].add_task(description, total=total, completed=done)
        try:
            yield lambda n=1: _shown[0].advance(task, n)
        finally:
            _shown[0].remove_task(task)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        _shown.append(progress)
        try:
            task = progress.add_task(description, total=total, completed=done)
            yield lambda n=1: progress.advance(task, n)
        finally:
            _shown.clear()


def tracked(description: str, items: Sequence[T]) -> Iterator[T]:
    """The items, with a bar that says how many are done."""
    with bar(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


class _Lines:
    """Progress for log files: nothing for short work, else a line now and then."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self._description = description
        self._total = total
        self._before = done
        self._done = done
        self._begin = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._last < _LINE_EVERY_S:
            return
        self._last = now
        spent = now - self._begin
        counts = f"{self._done}/{self._total}, {duration(spent)} gone"
        if here := self._done - self._before:  # else nobody knows how long one takes
            left = spent / here * (self._total - self._done)
            counts += f", {duration(left)} left"
        console.print(f"{self._description}: {counts}", markup=False)


def duration(seconds: float) -> str:
    """3 -> "3 s", 90 -> "1:30 min", 4000 -> "1:06 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60}:{whole % 60:02d} min"
        if whole < 3600
        else f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    )


class Timer:
    """Seconds since the last call, as a metric."""

    def __init__(self):
        self.last = time.perf_counter()

    def __call__(self, phase: str) -> dict[str, float]:
        before = self.last
        self.last = time.perf_counter()
        return {f"time/{phase}": self.last - before}
