"""The tables of a study: results.csv, comparisons.csv and those of report.md.

Rates and differences in CSV files: 0.1 means ten points.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wamrl.report.summary import ratio_text
from wamrl.runtime.files import atomic_file
from wamrl.runtime.log import duration
from wamrl.stats.nested import Estimate, holm, iqm
from wamrl.stats.paired import mcnemar, paired_difference, wilson
from wamrl.study.claims import KINDS, LONG, Claim, sentence
from wamrl.study.results import CellResult, Results, unique
from wamrl.types import SAMPLERS

REFERENCES = ("base", "actor_success")
RESULT_COLUMNS = (
    "task",
    "kind",
    "arm",
    "seed",
    "episodes",
    "successes",
    "rate",
    "wilson_low",
    "wilson_high",
    "control_steps",
    "stages",
    "mean_stages",
    "mean_length",
    "error_over_copy",
    "reattempted",
    "recovered",
    "seconds",
)
COMPARISON_COLUMNS = (
    "task",
    "kind",
    "arm",
    "against",
    "seed",
    "episodes",
    "before",
    "after",
    "difference",
    "low",
    "high",
    "method",
    "gained",
    "lost",
    "p_value",
    "p_holm",
)


# --- the CSV files


def result_rows(results: Results) -> list[dict]:
    """The rows of results.csv, by task, arm and seed."""
    cells = [c for t in results.tasks for a in results.arms for c in results.of(t, a)]
    return [result_row(c) for c in cells]


def result_row(c: CellResult) -> dict:
    """One row of results.csv."""
    wins = int(c.success.sum())
    low, high = wilson(wins, len(c.success))
    again, recovered = c.recovery or ("", "")
    return {
        "task": c.task,
        "kind": c.kind,
        "arm": c.arm,
        "seed": c.seed,
        "episodes": len(c.success),
        "successes": wins,
        "rate": f"{c.rate:.6f}",
        "wilson_low": f"{low:.6f}",
        "wilson_high": f"{high:.6f}",
        "control_steps": c.control_steps,
        "stages": c.goals,
        "mean_stages": f"{c.stages_done.mean():.6f}",
        "mean_length": f"{c.mean_length:.6f}",
        "error_over_copy": ratios(c),
        "reattempted": again,
        "recovered": recovered,
        "seconds": f"{c.seconds:.1f}",
    }


def ratios(c: CellResult) -> str:
    """The error over copying at every offset where it was measured: "+4:0.5000 +8:0.6000"."""
    known = {k: v for k, v in c.error_over_copy.items() if v is not None}
    return " ".join(f"+{offset}:{value:.4f}" for offset, value in known.items())


def mean_ratios(cells: list[CellResult]) -> dict[str, float | None]:
    """The error over copying, mean over cells, by offset; None where one of them has none."""
    means = {}
    for offset in cells[0].error_over_copy:
        values = [c.error_over_copy.get(offset) for c in cells]
        means[offset] = None if None in values else float(np.mean(values))
    return means


def comparison_rows(results: Results) -> list[dict]:
    """The rows of comparisons.csv: every arm against each reference, on every task.

    Seed by seed, and over all seeds, where p-values are corrected (Holm) over the arms of the task.
    """
    rows = []
    for task in results.tasks:
        for against in REFERENCES:
            others = [a for a in results.arms if a not in (against, "base")]
            arms = [a for a in others if results.pairs(task, a, against)]
            pooled = [_pooled_row(results, task, arm, against) for arm in arms]
            corrected = holm([row["p_value"] for row in pooled])
            for row, p in zip(pooled, corrected, strict=True):
                rows += _seed_rows(results, task, row["arm"], against)
                rows.append(row | {"p_holm": p})
    return rows


def _seed_rows(results: Results, task: str, arm: str, against: str) -> list[dict]:
    names = {"task": task, "kind": results.kind(task), "arm": arm, "against": against}
    pairs = results.pairs(task, arm, against)
    return [
        names | {"seed": seed} | asdict(paired_difference(*pair)) | {"p_holm": ""}
        for seed, pair in pairs.items()
    ]


def _pooled_row(results: Results, task: str, arm: str, against: str) -> dict:
    pairs = results.pairs(task, arm, against).values()
    estimate = results.difference([task], arm, against)
    change = np.concatenate([mine.astype(int) - other for other, mine in pairs])
    return {
        "task": task,
        "kind": results.kind(task),
        "arm": arm,
        "against": against,
        "seed": "all",
        "episodes": estimate.episodes,
        "before": float(np.mean([other.mean() for other, _ in pairs])),
        "after": float(np.mean([mine.mean() for _, mine in pairs])),
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "method": f"hierarchical ({estimate.method})",
        "gained": int((change > 0).sum()),
        "lost": int((change < 0).sum()),
        "p_value": mcnemar(change),
    }


def write_csv(path: Path, columns: Sequence[str], rows: list[dict]) -> None:
    """Numbers to six digits; the file is replaced at once."""
    with atomic_file(path) as draft, open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


# --- the tables of report.md


def markdown(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(e: Estimate) -> str:
    """A rate with its interval: "82.0 [76.1, 86.7]"."""
    return f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def task_table(results: Results, task: str, comparisons: list[dict]) -> str:
    """Success per arm and its paired differences to the references."""
    pooled = [r for r in comparisons if r["task"] == task and r["seed"] == "all"]
    against = {(r["arm"], r["against"]): r for r in pooled}
    head = ["arm", "seeds x states", "success, %", "per seed, %", "sampler"]
    for name in REFERENCES:
        head += [f"- {name}, points", "p (Holm)"]
    rows = []
    for arm in results.arms:
        if not (cells := results.of(task, arm)):
            continue
        row = [
            f"`{arm}`",
            f"{len(cells)} x {len(cells[0].success)}",
            percent(results.rate(task, arm)),
            ", ".join(f"{100 * c.rate:.1f}" for c in cells),
            ", ".join(c.sampler for c in cells),
        ]
        for name in REFERENCES:
            pair = against.get((arm, name))
            row += ["", ""] if pair is None else [_difference(pair), f"{pair['p_holm']:.2g}"]
        rows.append(row)
    return markdown(head, rows)


def _difference(row: dict) -> str:
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


BY_SAMPLER = ("arm", *SAMPLERS, "deployed")


def sampler_rows(results: Results, task: str) -> list[list[str]]:
    """Rows under BY_SAMPLER: success (%) by each sampler, mean over seeds and seed by seed.

    Of the cells in which all were played. Policy gradients train `explore`; what is deployed may
    be another one, so two arms can differ by their samplers alone.
    """
    rows = []
    for arm in results.arms:
        cells = [c for c in results.of(task, arm) if set(SAMPLERS) <= c.rates.keys()]
        if not cells:
            continue
        found = [[100 * c.rates[sampler] for c in cells] for sampler in SAMPLERS]
        found.append([100 * c.rate for c in cells])
        shown = [f"{np.mean(r):.1f} ({', '.join(f'{x:.1f}' for x in r)})" for r in found]
        rows.append([arm, *shown])
    return rows


def cost_table(results: Results, task: str) -> str:
    """What each arm used and how good its imagination is: means over seeds.

    The time is that of the online part.
    """
    head = ["arm", "control steps online", "stages done", "episode length", "error / copy", "time"]
    rows = []
    for arm in results.arms:
        if not (cells := results.of(task, arm)):
            continue
        steps = [c.control_steps for c in cells]
        spread = f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"{steps[0]}"
        stages = np.mean([c.stages_done.mean() for c in cells])
        length = np.mean([c.mean_length for c in cells])
        time = duration(np.mean([c.seconds for c in cells]))
        row = [f"`{arm}`", spread, f"{stages:.2f} of {results.goals(task)}", f"{length:.1f}"]
        rows.append([*row, ratio_text(mean_ratios(cells)), time])
    return markdown(head, rows)


def horizon_table(results: Results, task: str) -> str:
    """Share of episodes (%) that completed at least k sub-goals."""
    stages = range(1, results.goals(task) + 1)
    arms = [a for a in results.arms if results.of(task, a)]
    rows = [[f"`{arm}`", *(percent(results.rate(task, arm, k)) for k in stages)] for arm in arms]
    return markdown(["arm", *(f"k = {k}" for k in stages)], rows)


def length_table(results: Results, task: str) -> str:
    """Success (%) of the same models on the task with K sub-goals; "-" where none was evaluated."""
    lengths = results.lengths(task)
    own = results.goals(task)
    rows = []
    for arm in results.arms:
        if not (cells := results.of(task, arm)):
            continue
        found = [results.at_length(task, arm, k) for k in lengths]
        shown = ["-" if e is None else percent(e) for e in found]
        rows.append([f"`{arm}`", *shown, ", ".join(c.sampler for c in cells)])
    heads = [f"K = {k}" + (" (trained)" if k == own else "") for k in lengths]
    return markdown(["arm", *heads, "sampler"], rows)


def length_states(results: Results, task: str) -> str:
    """In words: the episodes behind each column of `length_table`, of the arm that has most."""
    found = []
    for k in results.lengths(task):
        estimates = [results.at_length(task, arm, k) for arm in results.arms]
        seeds, episodes = max((e.seeds, e.episodes) for e in estimates if e is not None)
        found.append(f"K = {k}: {episodes} episodes of {seeds} seeds")
    return "; ".join(found)


def recovery_table(results: Results) -> str:
    """Episodes with more than one attempt; an empty text where no environment counts them."""
    rows = []
    for task in results.tasks:
        for arm in results.arms:
            cells = [c for c in results.of(task, arm) if c.recovery]
            if not cells:
                continue
            again = sum(c.recovery[0] for c in cells)
            recovered = sum(c.recovery[1] for c in cells)
            share = "none to recover"
            if again:
                low, high = wilson(recovered, again)
                share = f"{100 * recovered / again:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            episodes = sum(len(c.success) for c in cells)
            rows.append([task, f"`{arm}`", episodes, again, recovered, share])
    head = ["task", "arm", "episodes", "more than one attempt", "of these succeeded"]
    return markdown([*head, "%, Wilson 95 %"], rows) if rows else ""


def iqm_table(results: Results) -> str:
    """Interquartile means over the tasks of a kind, of arms that are finished on all of these."""
    rows = []
    present = {results.kind(t) for t in results.tasks}
    groups = [tuple(k for k in kinds if k in present) for kinds in (("short",), LONG, KINDS)]
    for kinds in unique(groups):
        tasks = [t for t in results.tasks if results.kind(t) in kinds]
        for arm in results.arms:
            scores = [np.array([c.rate for c in results.of(t, arm)]) for t in tasks]
            if tasks and all(len(s) for s in scores):
                size = f"{len(tasks)} x {min(map(len, scores))}"
                rows.append([" + ".join(kinds), f"`{arm}`", size, percent(iqm(scores))])
    return markdown(["tasks", "arm", "tasks x seeds", "interquartile mean of success, %"], rows)


def claim_sentences(results: Results, claims: Sequence[Claim], margin: float) -> list[str]:
    """One sentence per claim, from the tasks of its kinds."""
    sentences = []
    for claim in claims:
        tasks = [t for t in results.tasks if results.kind(t) in claim.kinds]
        estimate = results.difference(tasks, claim.arm, claim.against)
        sentences.append(sentence(claim, estimate, margin))
    return sentences
