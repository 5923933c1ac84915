"""The page of one run."""

from __future__ import annotations

from dataclasses import replace

from wamrl.page import panels
from wamrl.page.blocks import Folded, Number, Numbers, Page, Plots, Section, Table, Text
from wamrl.page.facts import (
    PHASES,
    Run,
    interval_text,
    p_text,
    pair,
    percent,
    read_run,
)
from wamrl.page.folder import RunFolder, flat
from wamrl.page.videos import gallery
from wamrl.runtime.log import duration

Blocks = list


def run_page(folder: RunFolder, *, video_mb: float = 24.0) -> Page:
    """What the run shows; ValueError of one sentence if it is not a run folder."""
    run = read_run(folder)
    online = [block for block in (panels.learning_plot(run),) if block]
    sections = [
        Section(title="Success", blocks=_success(run)),
        Section(title="Learning curves", blocks=_plots(online)),
        Section(title="Videos", blocks=gallery(folder, video_mb)),
        Section(title="Reward", blocks=_plots(panels.reward_plots(run.rows))),
        Section(title="Imagination", blocks=_plots(panels.imagination_plots(run.rows))),
        Section(
            title="Updates",
            blocks=_plots([*panels.sft_plots(run.rows), *panels.update_plots(run)]),
        ),
        Section(title="Time", blocks=_time(run)),
        Section(title="Provenance", blocks=_provenance(run)),
    ]
    if folder.refused:
        lines = [Text(text=line, tone="warning") for line in dict.fromkeys(folder.refused)]
        sections.insert(0, Section(title="Left out", blocks=lines))
    return Page(title=run.name, kicker=_kicker(run), lead=state(run), sections=sections)


def _kicker(run: Run) -> str:
    seed = run.config.get("seed")
    parts = ["run", str(run.config.get("name", "")), run.task]
    if isinstance(seed, int):
        parts.append(f"seed {seed}")
    return " · ".join(dict.fromkeys(part for part in parts if part))


def state(run: Run) -> str:
    """How far the run has come, in a sentence."""
    if run.last is not None:
        return _headline(run)
    done, planned = run.iterations
    if done:
        return (
            f"Not finished: iteration {done} of {planned} is the last one in the log, and the "
            "evaluation after the run is missing. Numbers may still change."
        )
    if any("sft/action_loss" in row or "heldout/" in " ".join(row) for row in run.rows):
        return "A base model, learned from demonstrations. It was not evaluated or improved here."
    return "Nothing has been logged yet: this run has just begun, or it ended early."


def _headline(run: Run) -> str:
    arm = run.last
    before = run.arms.get("before")
    if before is None:
        return f"{percent(arm.rate)} success in {arm.episodes} episodes."
    found = pair(before, arm)
    if found is None:
        return f"From {percent(before.rate)} to {percent(arm.rate)} success."
    how = "stayed as it was"
    if found.difference:
        how = "rose" if found.difference > 0 else "fell"
    sure = ""
    if found.difference and found.low <= 0 <= found.high:
        sure = " The interval of the difference includes none."
    return (
        f"Success on {run.task or 'the task'} {how}: {percent(found.before)} of {found.episodes} "
        f"held-out initial states before the online phase, {percent(found.after)} after it.{sure}"
    )


def _success(run: Run) -> Blocks:
    if not run.arms:
        return [Text(text="No model of this run has been evaluated yet.", tone="note")]
    items = []
    for arm in run.arms.values():
        detail = f"95 % interval {interval_text(arm.interval)}"
        items.append(Number(value=percent(arm.rate), label=arm.name, detail=detail))
    before = run.arms.get("before")
    found = pair(before, run.last) if before and run.last else None
    blocks: Blocks = []
    if found:
        ends = f"95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f}"
        alike = "all states changed alike, so there is no interval"
        items.append(
            Number(
                value=f"{100 * found.difference:+.1f} points",
                label="paired difference",
                detail=alike if found.method == "degenerate" else ends,
            )
        )
    blocks += [Numbers(items=tuple(items)), Plots(items=(panels.success_plot(run),))]
    blocks.append(_arms_table(run))
    if found:
        blocks.append(
            Text(
                text=f"Paired over the same {found.episodes} initial states: {found.gained} gained "
                f"(failed before, solved after), {found.lost} lost; McNemar's exact test "
                f"{p_text(found.p_value)}. Interval of the difference: bootstrap over pairs.",
                tone="note",
            )
        )
    elif before:
        blocks.append(
            Text(
                text="There is no paired difference: the summary does not name the initial states.",
                tone="note",
            )
        )
    return blocks


def _arms_table(run: Run) -> Table:
    rows = []
    for arm in run.arms.values():
        length = "not measured" if arm.mean_length is None else f"{arm.mean_length:.1f}"
        rows.append(
            [
                arm.name,
                f"{arm.successes} of {arm.episodes}",
                percent(arm.rate),
                interval_text(arm.interval),
                arm.sampler or "not said",
                length,
                arm.ratios,
            ]
        )
    head = (
        "model",
        "successes",
        "success",
        "Wilson 95 %",
        "sampler",
        "control steps",
        "world-model error / copy",
    )
    return Table(head=head, rows=rows)


def _plots(plots: Blocks) -> Blocks:
    """Side by side; one that is left over takes the whole width."""
    if sum(not plot.wide for plot in plots) % 2:
        plots = [*plots[:-1], replace(plots[-1], wide=True)]
    return [Plots(items=tuple(plots))] if plots else []


def _time(run: Run) -> Blocks:
    plot = panels.time_plot(run)
    seconds = run.seconds
    if not seconds:
        return [Text(text="No phase of this run was timed.", tone="note")]
    names = PHASES | {
        "sft": "learning from demonstrations",
        "other": "all else: evaluation before and after, saving",
    }
    whole = sum(seconds.values())
    rows = [
        [names[phase], duration(spent), f"{100 * spent / whole:.0f} %"]
        for phase, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    table = Table(head=("phase", "time", "share"), rows=[*rows, ["in all", duration(whole), ""]])
    return [*_plots([plot] if plot else []), table]


def _provenance(run: Run) -> Blocks:
    blocks: Blocks = []
    if run.record:
        blocks.append(_record(run))
    else:
        blocks.append(
            Text(
                text="This run has no run.json: it was made by a wamrl that did not write down "
                "command, versions and commit yet.",
                tone="note",
            )
        )
    config = [[name, value] for name, value in flat(run.config).items()]
    table = Table(head=("setting", "value"), rows=config, code=True)
    blocks.append(Folded(title=f"Configuration: {len(config)} settings", blocks=[table]))
    return blocks


def _record(run: Run) -> Table:
    """run.json, a line per thing; long lists such as the versions in one."""
    rows = []
    for key, value in run.record.items():
        if key in ("format", "version", "config"):
            continue
        if key == "command" and isinstance(value, list):
            text = " ".join(map(str, value))
        elif isinstance(value, dict):
            text = ", ".join(f"{name} {part}" for name, part in flat(value).items() if part)
        else:
            text = ", ".join(flat(value, key).values())
        rows.append([key, text or "none"])
    return Table(head=("", ""), rows=rows, code=True)
