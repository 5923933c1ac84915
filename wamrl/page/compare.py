"""Runs side by side: success, paired differences, the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wamrl.page.blocks import Page, Plots, Section, Table, Text
from wamrl.page.facts import Arm, Run, interval_text, p_text, pair, percent, read_run
from wamrl.page.folder import RunFolder, flat
from wamrl.page.plots import ORDER, dots, success_curves
from wamrl.page.run import state

ABSENT = "-"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What can be said of runs together. The first run is what the others are compared with."""

    runs: tuple[Run, ...]
    labels: tuple[str, ...]  # as short as tells them apart
    success: Table
    paired: Table
    notes: tuple[str, ...]  # why there is no pair
    settings: Table  # those that differ


def comparison(folders: Sequence[RunFolder]) -> Comparison:
    """ValueError of one sentence for fewer than two folders, or one that is not a run's."""
    if len(folders) < 2:
        raise ValueError("give two run folders or more: the first is what others are compared with")
    runs = tuple(read_run(folder) for folder in folders)
    labels = _labels(runs)
    paired, notes = _pairs(runs, labels)
    return Comparison(
        runs=runs,
        labels=labels,
        success=_success(runs, labels),
        paired=paired,
        notes=notes,
        settings=_settings(runs, labels),
    )


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """A number, and the folder's name, or as much of the end of its path as tells it apart."""
    paths = [run.path.absolute().parts for run in runs]
    if len(set(paths)) < len(paths):
        raise ValueError("a run is named twice: give each one once")
    depths = [3 if parts[-1].startswith("seed") else 1 for parts in paths]  # TASK/ARM/seedS
    for more in range(max(map(len, paths))):
        ends = ["/".join(parts[-d - more :]) for parts, d in zip(paths, depths, strict=True)]
        if len(set(ends)) == len(ends):
            break
    return tuple(f"{i}: {end}" for i, end in enumerate(ends, 1))


def _success(runs: Sequence[Run], labels: Sequence[str]) -> Table:
    rows = []
    for run, label in zip(runs, labels, strict=True):
        before = run.arms.get("before")
        first = "not measured" if before is None else percent(before.rate)
        arm = run.last
        if arm is None:
            done, planned = run.iterations
            rows.append(
                [label, first, f"not finished ({done} of {planned} iterations)", "", "", ""]
            )
            continue
        rows.append(
            [
                label,
                first,
                percent(arm.rate),
                interval_text(arm.interval),
                f"{arm.successes} of {arm.episodes}",
                arm.sampler or "not said",
            ]
        )
    return Table(
        head=("run", "before", "success", "Wilson 95 %", "successes", "sampler"), rows=rows
    )


def _pairs(runs: Sequence[Run], labels: Sequence[str]) -> tuple[Table, tuple[str, ...]]:
    """Every run minus the first, where both were evaluated from the same initial states."""
    rows = []
    notes = []
    for run, label in zip(runs[1:], labels[1:], strict=True):
        why = _not_paired(runs[0], run)
        found = None if why else pair(_last(runs[0]), _last(run))
        if found is None:
            notes.append(f"{label} is not paired with 1: {why or 'no state in common'}.")
            continue
        rows.append(
            [
                label,
                found.points,
                str(found.episodes),
                f"{found.gained}, {found.lost}",
                p_text(found.p_value).removeprefix("p ").removeprefix("= "),
            ]
        )
    head = ("run", "minus 1, points", "pairs", "gained, lost", "McNemar p")
    return Table(head=head, rows=rows), tuple(notes)


def _last(run: Run) -> Arm:
    assert run.last is not None, "_not_paired says so"
    return run.last


def _not_paired(a: Run, b: Run) -> str:
    """Why their initial states are not the same; "" where they are."""
    if a.last is None or b.last is None:
        return "one of them has no evaluated model"
    here = flat(a.config.get("env"), "env")
    there = flat(b.config.get("env"), "env")
    other = [k for k in here.keys() | there.keys() if here.get(k) != there.get(k)]
    if other:
        return f"the environments differ ({', '.join(sorted(other))})"
    return ""


def _settings(runs: Sequence[Run], labels: Sequence[str]) -> Table:
    configs = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = []
    for name in names:
        values = [config.get(name, ABSENT) for config in configs]
        if len(set(values)) > 1:
            rows.append([name, *values])
    numbers = [label.partition(":")[0] for label in labels]
    return Table(head=("setting", *numbers), rows=rows, code=True)


def compare_page(found: Comparison) -> Page:
    """The same as a page, with learning curves."""
    sections = [
        Section(title="Success", blocks=[*_dots(found), found.success]),
        Section(title="Paired differences", blocks=_paired(found)),
        Section(title="Learning curves", blocks=_curves(found)),
        Section(title="Settings that differ", blocks=_differing(found)),
        Section(
            title="The runs",
            blocks=[
                Table(
                    head=("run", "what it shows", "folder"),
                    rows=[
                        [label, state(run), str(run.path)]
                        for run, label in zip(found.runs, found.labels, strict=True)
                    ],
                )
            ],
        ),
    ]
    return Page(
        title=f"{len(found.runs)} runs compared",
        kicker=" · ".join(dict.fromkeys(run.task for run in found.runs if run.task)),
        lead="Differences are to the first run.",
        sections=sections,
    )


def _colours(found: Comparison) -> dict[str, str]:
    return {label: ORDER[i % len(ORDER)] for i, label in enumerate(found.labels)}


def _dots(found: Comparison) -> list[Plots]:
    rows = []
    small = {}
    colours = _colours(found)
    for run, label in zip(found.runs, found.labels, strict=True):
        arm = run.last
        if arm is None:
            continue
        low, high = arm.interval
        rows.append((label, 100 * arm.rate, 100 * low, 100 * high, colours[label]))
        before = run.arms.get("before")
        small[label] = [("before", 100 * before.rate)] if before else []
    if not rows:
        return []
    note = "Bars: Wilson 95 %. Hollow: the same run before its online part."
    title = "Success on held-out initial states"
    return [Plots(items=(dots(rows, title=title, x="success, %", small=small, note=note),))]


def _paired(found: Comparison) -> list[Table | Text]:
    notes = [Text(text=note, tone="note") for note in found.notes]
    return [*([found.paired] if found.paired.rows else []), *notes]


def _curves(found: Comparison) -> list[Plots | Text]:
    curves = {}
    for run, label in zip(found.runs, found.labels, strict=True):
        points = next((p for name, p in run.curves()[0].items() if name[:9] == "evaluated"), [])
        if points:
            curves[label] = points
    if not curves:
        return [Text(text="None of the runs was evaluated while it trained.", tone="note")]
    plot = success_curves(
        curves,
        colours=_colours(found),
        title="Held-out initial states, deployed sampler",
        x="online episodes so far",
        note="Bands and bars: Wilson 95 %.",
    )
    return [Plots(items=(plot,))]


def _differing(found: Comparison) -> list[Table | Text]:
    if found.settings.rows:
        return [found.settings]
    return [Text(text="The runs have the same settings.", tone="note")]
