"""The page of a study's folder, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wamrl.page.blocks import Folded, Key, Number, Numbers, Page, Plot, Plots, Section, Table, Text
from wamrl.page.folder import STUDY, RunFolder, flat, number
from wamrl.page.plots import COUNTS, ORDER, PER_CENT, SYMBOLS, Traces, band, curve, dots, figure
from wamrl.page.study_tables import cost_table, sampler_table, task_table
from wamrl.runtime.log import duration
from wamrl.stats.nested import Estimate
from wamrl.study.claims import KINDS, MIN_SEEDS, Claim, plural, points, verdict
from wamrl.study.report import ABOUT
from wamrl.study.results import CellResult, Results, cell_curves, on_one_axis

BASE = "base"
_HOW = (
    "Success is on held-out initial states that nothing was trained on, the same for all arms and "
    "seeds; each arm of a task and seed starts from the same base model. Intervals are 95 %: "
    "hierarchical bootstrap over seeds, then over initial states within each drawn seed. With "
    "three seeds an interval is only as good as three seeds can be."
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the folder says."""

    name: str
    seeds: list[int]
    kinds: dict[str, str]  # task -> kind
    arms: dict[str, list[str]]  # task -> its arms, the base first
    tests: dict[str, str]  # arm -> what it is there to show, as far as known
    claims: list[Claim]
    margin: float  # of the claims' rule, rate
    results: Results
    identity: dict[str, Any] = field(repr=False)  # study.json

    @property
    def missing(self) -> list[str]:
        """TASK/ARM/SEED of the cells without a result."""
        there = {(c.task, c.arm, c.seed) for c in self.results.cells}
        return [
            f"{task}/{arm}/{seed}"
            for task, arms in self.arms.items()
            for arm in arms
            for seed in self.seeds
            if (task, arm, seed) not in there
        ]


def study_page(folder: RunFolder) -> Page:
    """What the study shows so far; ValueError of one sentence if it is not a study's folder."""
    study = read_study(folder)
    finished = len(study.results.cells)
    whole = finished + len(study.missing)
    lead = f"All {plural(whole, 'cell')} are finished."
    if study.missing:
        lead = f"Not finished: {finished} of {plural(whole, 'cell')} have a result, so every "
        lead += "number may still change."
    sections = [
        Section(title="Claims", blocks=_claims(study)),
        Section(title="Cells", blocks=_cells(study)),
        *(_task(study, task) for task in study.results.tasks),
        Section(title="How to read this", blocks=_about(study)),
    ]
    if folder.refused:
        lines = [Text(text=line, tone="warning") for line in dict.fromkeys(folder.refused)]
        sections.insert(0, Section(title="Left out", blocks=lines))
    kicker = f"study · {plural(len(study.kinds), 'task')} · {plural(len(study.seeds), 'seed')}"
    return Page(title=study.name, kicker=kicker, lead=lead, sections=sections)


def read_study(folder: RunFolder) -> Study:
    """ValueError of one sentence where something is not what wamrl writes."""
    identity = folder.json(STUDY)
    if identity is None:
        raise ValueError(f"{folder.path} is not the folder of a study (no {STUDY})")
    try:
        tasks = {str(name): dict(task) for name, task in identity["tasks"].items()}
        about = folder.json(ABOUT) or {}
        arms = {name: [BASE, *map(str, task["arms"])] for name, task in tasks.items()}
        kinds = {name: str(task["kind"]) for name, task in tasks.items()}
        seeds = [int(seed) for seed in identity["seeds"]]
        names = list(dict.fromkeys(arm for found in arms.values() for arm in found))
        places = [(task, arm, seed) for task in tasks for arm in arms[task] for seed in seeds]
        found = [_cell(folder, kinds[task], task, arm, seed) for task, arm, seed in places]
        return Study(
            name=str(identity["name"]),
            seeds=seeds,
            kinds=kinds,
            arms=arms,
            tests={str(k): str(v) for k, v in about.get("arms", {}).items()},
            claims=[_claim(content) for content in about.get("claims", [])],
            margin=number(about.get("margin")) or 0.05,
            results=Results([cell for cell in found if cell], names, list(tasks)),
            identity=identity,
        )
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{folder.path} is not a study as wamrl writes it ({error!r}): run it again"
        ) from error


def _claim(content: dict[str, Any]) -> Claim:
    expects = content["expects"]
    kinds = tuple(kind for kind in KINDS if kind in content["kinds"])
    names = {key: str(content[key]) for key in ("text", "arm", "against")}
    if expects not in ("gain", "no gain"):
        raise TypeError("a claim expects a gain or none")
    return Claim(number=int(content["number"]), kinds=kinds, expects=expects, **names)


def _cell(folder: RunFolder, kind: str, task: str, arm: str, seed: int) -> CellResult | None:
    """A finished cell, else None."""
    place = folder.sub(f"{task}/{arm}/seed{seed}")
    summary = place and place.json("summary.json")
    if not summary:
        return None
    rows = [] if arm == BASE else place.rows()
    learned, evaluated = cell_curves(rows)
    names = {"task": task, "kind": kind, "arm": arm, "seed": seed}
    return CellResult.from_summary(summary, **names, curve=learned, evaluated=evaluated)


# --- claims and cells


def _claims(study: Study) -> Sequence[Table | Text]:
    if not study.claims:
        return [
            Text(
                text="This folder names no claims. `wamrl study NAME --out FOLDER --report-only` "
                "writes those of the study into it.",
                tone="note",
            )
        ]
    rows = []
    for claim in study.claims:
        tasks = [t for t in study.results.tasks if study.results.kind(t) in claim.kinds]
        estimate = study.results.difference(tasks, claim.arm, claim.against)
        size = ""
        value = "no finished pair"
        if estimate is not None:
            value = points(estimate)
            size = f"{estimate.episodes} pairs, {plural(estimate.tasks, 'task')}, "
            size += plural(estimate.seeds, "seed")
        word = verdict(estimate, claim.expects, study.margin)
        arms = f"{claim.arm} - {claim.against}"
        rows.append([f"{claim.number}. {claim.text}", word, arms, value, size])
    margin = f"{100 * study.margin:g}"
    rule = (
        f"Rule, fixed before the data, on the interval of the paired difference: a gain is "
        f"supported if its low end is above 0, not supported if its high end is below {margin} "
        f"points, else undecided. Of a claim of no gain the reverse. Fewer than "
        f"{MIN_SEEDS} seeds decide nothing."
    )
    head = ("claim", "verdict", "arms", "difference, points", "from")
    return [Table(head=head, rows=rows), Text(text=rule, tone="note")]


def _cells(study: Study) -> Sequence[Table | Text | Numbers]:
    """Which cells there are, with the success of each."""
    results = study.results
    arms = list(dict.fromkeys(arm for found in study.arms.values() for arm in found))
    rows = [[arm, *(_seeds(study, task, arm) for task in study.kinds)] for arm in arms]
    finished = len(results.cells)
    online = [c for c in results.cells if c.arm != BASE]
    cost = sum(c.seconds for c in results.cells)
    items = (
        Number(value=f"{finished} of {finished + len(study.missing)}", label="cells finished"),
        Number(value=f"{sum(c.control_steps for c in online):,}", label="control steps online"),
        Number(value=duration(cost), label="time of the finished cells"),
    )
    caption = f"Success of each seed ({', '.join(map(str, study.seeds))}), %."
    table = Table(head=("arm", *study.kinds), rows=rows, caption=caption)
    if not study.missing:
        return [Numbers(items=items), table]
    shown = ", ".join(study.missing[:12]) + (" ..." if len(study.missing) > 12 else "")
    text = f"Missing, {plural(len(study.missing), 'cell')}: {shown}"
    return [Numbers(items=items), table, Text(text=text, tone="warning")]


def _seeds(study: Study, task: str, arm: str) -> str:
    """Success of the seeds of an arm on a task, and how many have no result."""
    if arm not in study.arms[task]:
        return "not planned"
    cells = study.results.of(task, arm)
    missing = len(study.seeds) - len(cells)
    if not cells:
        return "missing"
    rates = ", ".join(f"{100 * c.rate:.1f}" for c in cells)
    return f"{rates}; {missing} missing" if missing else rates


# --- a task


def _task(study: Study, task: str) -> Section:
    results = study.results
    looks = _looks(study)
    arms = [arm for arm in results.arms if results.of(task, arm)]
    plots = [_arms_plot(results, task, arms, looks)]
    if results.goals(task) > 1:
        plots.append(_stages_plot(results, task, arms, looks))
    learning = _learning_plot(results, task, arms, looks)
    blocks = [
        Plots(items=tuple(plots)),
        task_table(results, task, arms),
        *sampler_table(results, task),
        *([Plots(items=(learning,))] if learning else ()),
        cost_table(results, task, arms),
    ]
    absent = [name for name in study.missing if name.startswith(f"{task}/")]
    if absent:
        text = f"{plural(len(absent), 'cell')} of this task without a result yet, "
        text += "so every number below may still change."
        blocks.insert(0, Text(text=text, tone="warning"))
    return Section(title=f"{task} ({results.kind(task)})", blocks=blocks)


@dataclass(frozen=True)
class Look:
    """Of an arm, in every plot."""

    colour: str
    symbol: str
    dash: str

    @property
    def mark(self) -> str:
        """In a legend."""
        return "line" if self.dash == "solid" else "dashed"


def _looks(study: Study) -> dict[str, Look]:
    """Of every arm, finished or not: the base grey, and where colours come again dotted."""
    arms = list(dict.fromkeys(arm for found in study.arms.values() for arm in found))
    colours = [colour for colour in ORDER if colour != "grey"]
    found = {BASE: Look("grey", "circle", "solid")}
    for i, arm in enumerate(arm for arm in arms if arm != BASE):
        again, at = divmod(i, len(colours))
        found[arm] = Look(colours[at], SYMBOLS[i % len(SYMBOLS)], "dot" if again else "solid")
    return found


def _ends(e: Estimate) -> tuple[float, float, float]:
    return 100 * e.value, 100 * e.low, 100 * e.high


def _arms_plot(results: Results, task: str, arms: list[str], looks: dict[str, Look]) -> Plot:
    rows = []
    small = {}
    for arm in arms:
        rows.append((arm, *_ends(results.rate(task, arm)), looks[arm].colour))
        small[arm] = [(f"seed {c.seed}", 100 * c.rate) for c in results.of(task, arm)]
    keys = (
        Key(label="mean over seeds, bar: 95 %", colour="grey", mark="dot"),
        Key(label="one seed", colour="grey", mark="hollow"),
    )
    return dots(rows, title="Success of every arm", x="success, %", small=small, keys=keys)


def _stages_plot(results: Results, task: str, arms: list[str], looks: dict[str, Look]) -> Plot:
    goals = range(1, results.goals(task) + 1)
    traces: Traces = []
    keys = []
    for i, arm in enumerate(arms):
        look = looks[arm]
        shift = 0.4 * (i / max(1, len(arms) - 1) - 0.5)
        for k in goals:
            value, low, high = _ends(results.rate(task, arm, k))
            bar = {"type": "data", "symmetric": False, "array": [high - value]}
            bar |= {"arrayminus": [value - low], "thickness": 2, "width": 0}
            name = f"{arm}, k = {k}"
            traces += curve([k + shift], [value], look.colour, name, unit=" %", error_y=bar)
            traces[-1]["marker"] |= {"symbol": look.symbol}
        keys.append(Key(label=arm, colour=look.colour, mark="dot"))
    x = {"tickvals": list(goals), "range": [0.5, len(goals) + 0.5]}
    drawn = figure(traces, x="sub-goals k", y="episodes, %", height=330, xaxis=x, yaxis=PER_CENT)
    title = "Episodes that completed at least k sub-goals"
    return Plot(title=title, figure=drawn, keys=tuple(keys), wide=True)


def _learning_plot(
    results: Results, task: str, arms: list[str], looks: dict[str, Look]
) -> Plot | None:
    """Mean over seeds, band: their range; on held-out states where runs were evaluated often."""
    during = any(len(c.evaluated) > 2 for arm in arms for c in results.of(task, arm))
    traces: Traces = []
    keys = []
    for arm in arms:
        cells = results.of(task, arm)
        curves = [np.array(c.evaluated if during else c.curve) for c in cells]
        curves = [points for points in curves if len(points)]
        if not curves:
            continue
        look = looks[arm]
        x, y = on_one_axis(curves)
        at = x.tolist()
        if len(y) > 1:
            ends = [(100 * edge).tolist() for edge in (y.min(0), y.max(0))]
            traces = band(at, *ends, look.colour) + traces
        mean = (100 * y.mean(0)).tolist()
        traces += curve(at, mean, look.colour, arm, dash=look.dash, unit=" %")
        traces[-1]["marker"] |= {"symbol": look.symbol, "size": 6}
        label = f"{arm} ({plural(len(curves), 'seed')})"
        keys.append(Key(label=label, colour=look.colour, mark=look.mark))
    if not keys:
        return None
    x_title = "online episodes so far" if during else "control steps learned from so far"
    states = "held-out" if during else "fresh training"
    drawn = figure(traces, x=x_title, y="success, %", height=330, yaxis=PER_CENT, xaxis=COUNTS)
    title = "Learning curves"
    note = f"On {states} initial states; mean over seeds, band: their range."
    return Plot(title=title, figure=drawn, keys=tuple(keys), note=note, wide=True)


def _about(study: Study) -> Sequence[Text | Table | Folded]:
    blocks: list[Text | Table | Folded] = [Text(text=_HOW)]
    if study.tests:
        rows = [[arm, what] for arm, what in study.tests.items()]
        blocks.append(Table(head=("arm", "what it tests"), rows=rows))
    for task, content in study.identity["tasks"].items():
        config = [[name, value] for name, value in flat(content.get("base")).items()]
        table = Table(head=("setting", "value"), rows=config, code=True)
        title = f"Configuration of the base on {task}: {len(config)} settings"
        blocks.append(Folded(title=title, blocks=[table]))
    return blocks
