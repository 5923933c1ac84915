"""The tables of a task on a study's page."""

from __future__ import annotations

from typing import Any

import numpy as np

from wamrl.page.blocks import Table
from wamrl.page.facts import p_text
from wamrl.report import ratio_text
from wamrl.runtime.log import duration
from wamrl.study.results import Results
from wamrl.study.tables import (
    BY_SAMPLER,
    REFERENCES,
    comparison_rows,
    mean_ratios,
    percent,
    sampler_rows,
)


def task_table(results: Results, task: str, arms: list[str]) -> Table:
    """Success of every arm, and its paired differences to the references."""
    one = Results([c for c in results.cells if c.task == task], results.arms, [task])
    pooled = [row for row in comparison_rows(one) if row["seed"] == "all"]
    against = {(row["arm"], row["against"]): row for row in pooled}
    references = [name for name in REFERENCES if name in arms]
    head = ["arm", "seeds x states", "success, %", "per seed, %", "sampler"]
    for name in references:
        head += [f"minus {name}, points", "p (Holm)"]
    rows = []
    for arm in arms:
        cells = results.of(task, arm)
        row = [
            arm,
            f"{len(cells)} x {len(cells[0].success)}",
            percent(results.rate(task, arm)),
            ", ".join(f"{100 * c.rate:.1f}" for c in cells),
            ", ".join(dict.fromkeys(c.sampler for c in cells)),
        ]
        for name in references:
            found = against.get((arm, name))
            row += ["-", "-"] if found is None else [_difference(found), _p(found["p_holm"])]
        rows.append(row)
    caption = "Brackets: 95 %. Differences are paired, over the initial states of both."
    return Table(head=head, rows=rows, caption=caption)


def sampler_table(results: Results, task: str) -> list[Table]:
    """Success by each sampler; none where not all were played."""
    rows = sampler_rows(results, task)
    caption = "Success of the same models by each sampler, %: mean (seed by seed)."
    return [Table(head=BY_SAMPLER, rows=rows, caption=caption)] if rows else []


def _difference(row: dict[str, Any]) -> str:
    low, high = (100 * row[end] for end in ("low", "high"))
    return f"{100 * row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _p(value: float) -> str:
    return p_text(value).removeprefix("p ").removeprefix("= ")


def cost_table(results: Results, task: str, arms: list[str]) -> Table:
    """What every arm took, and how good its imagination is."""
    rows = []
    for arm in arms:
        cells = results.of(task, arm)
        lengths = [c.mean_length for c in cells]
        rows.append(
            [
                arm,
                f"{np.mean([c.control_steps for c in cells]):,.0f}",
                f"{np.mean(lengths):.1f}",
                ratio_text(mean_ratios(cells)) or "not measured",
                duration(float(np.mean([c.seconds for c in cells]))),
            ]
        )
    head = ("arm", "control steps online", "episode length", "world-model error / copy", "time")
    return Table(head=head, rows=rows, caption="Cost: means over seeds.")
