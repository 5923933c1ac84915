"""`report.md`, `results.csv` and `comparisons.csv` of a study.
Rates and differences in files: 0.1 means ten points.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wamrl.report.summary import paired_difference, ratio_text, wilson
from wamrl.runtime.log import duration
from wamrl.stats.nested import Estimate, holm, iqm, mcnemar
from wamrl.study.claims import KINDS, LONG, Claim, sentence
from wamrl.study.results import CellResult, Results, unique

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


def result_row(c: CellResult) -> dict:
    """One row of results.csv."""
    low, high = wilson(int(c.success.sum()), len(c.success))
    again, recovered = c.recovery or ("", "")
    return {
        "task": c.task,
        "kind": c.kind,
        "arm": c.arm,
        "seed": c.seed,
        "episodes": len(c.success),
        "successes": int(c.success.sum()),
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
    known = {k: v for k, v in c.error_over_copy.items() if v is not None}
    return " ".join(f"+{offset}:{value:.4f}" for offset, value in known.items())


def mean_ratios(cells: list[CellResult]) -> dict[str, float | None]:
    """Mean over cells at every offset; None where one of them has none."""
    found = {k: [c.error_over_copy.get(k) for c in cells] for k in cells[0].error_over_copy}
    return {k: None if None in values else float(np.mean(values)) for k, values in found.items()}


def comparison_rows(results: Results) -> list[dict]:
    """Every arm against each reference: per task and seed,
    and per task over all seeds (Holm over the arms there).
    """
    rows = []
    for task in results.tasks:
        for against in REFERENCES:
            arms = [
                a
                for a in results.arms
                if a not in (against, "base") and results.pairs(task, a, against)
            ]
            pooled = [_pooled_row(results, task, arm, against) for arm in arms]
            for row, p in zip(pooled, holm([row["p_value"] for row in pooled]), strict=True):
                rows += _seed_rows(results, task, row["arm"], against) + [row | {"p_holm": p}]
    return rows


def _seed_rows(results: Results, task: str, arm: str, against: str) -> list[dict]:
    names = {"task": task, "kind": results.kind(task), "arm": arm, "against": against}
    pairs = results.pairs(task, arm, against)
    return [
        names | {"seed": seed} | asdict(paired_difference(*pair)) | {"p_holm": ""}
        for seed, pair in pairs.items()
    ]


def _pooled_row(results: Results, task: str, arm: str, against: str) -> dict:
    pairs, e = results.pairs(task, arm, against), results.difference([task], arm, against)
    before, after = (np.mean([pair[i].mean() for pair in pairs.values()]) for i in (0, 1))
    change = np.concatenate([mine.astype(int) - other for other, mine in pairs.values()])
    return {
        "task": task,
        "kind": results.kind(task),
        "arm": arm,
        "against": against,
        "seed": "all",
        "episodes": e.episodes,
        "before": float(before),
        "after": float(after),
        "difference": e.value,
        "low": e.low,
        "high": e.high,
        "method": f"hierarchical ({e.method})",
        "gained": int((change > 0).sum()),
        "lost": int((change < 0).sum()),
        "p_value": mcnemar(change),
    }


def write_csv(path: Path, columns: Sequence[str], rows: list[dict]) -> None:
    draft = Path(path).with_suffix(".tmp")
    with open(draft, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    draft.replace(path)


def markdown(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def percent(e: Estimate) -> str:
    return f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def task_table(results: Results, task: str, comparisons: list[dict]) -> str:
    """Success per arm and its paired differences to the references."""
    against = {
        (r["arm"], r["against"]): r for r in comparisons if r["task"] == task and r["seed"] == "all"
    }
    head = ["arm", "seeds x states", "success, %", "per seed, %", "sampler"]
    head += [h for name in REFERENCES for h in (f"- {name}, points", "p (Holm)")]
    rows = []
    for arm in results.arms:
        if not (cells := results.of(task, arm)):
            continue
        row = [
            f"`{arm}`",
            f"{len(cells)} x {len(cells[0].success)}",
            percent(results.rate(task, arm)),
        ]
        row.append(", ".join(f"{100 * c.rate:.1f}" for c in cells))
        row.append(", ".join(c.sampler for c in cells))
        for name in REFERENCES:
            pair = against.get((arm, name))
            row += ["", ""] if pair is None else [_difference(pair), f"{pair['p_holm']:.2g}"]
        rows.append(row)
    return markdown(head, rows)


def _difference(row: dict) -> str:
    return f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def cost_table(results: Results, task: str) -> str:
    """What each arm used (time: of its online part) and how
    good its imagination is: means over seeds.
    """
    head = ["arm", "control steps online", "stages done", "episode length", "error / copy", "time"]
    rows = []
    for arm in results.arms:
        if not (cells := results.of(task, arm)):
            continue
        steps = [c.control_steps for c in cells]
        spread = f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else f"{steps[0]}"
        errors = ratio_text(mean_ratios(cells))
        stages = f"{np.mean([c.stages_done.mean() for c in cells]):.2f} of {results.goals(task)}"
        length = f"{np.mean([c.mean_length for c in cells]):.1f}"
        rows.append(
            [
                f"`{arm}`",
                spread,
                stages,
                length,
                errors,
                duration(np.mean([c.seconds for c in cells])),
            ]
        )
    return markdown(head, rows)


def horizon_table(results: Results, task: str) -> str:
    """Share of episodes (%) that completed at least k sub-goals."""
    stages = range(1, results.goals(task) + 1)
    arms = [a for a in results.arms if results.of(task, a)]
    rows = [[f"`{arm}`", *(percent(results.rate(task, arm, k)) for k in stages)] for arm in arms]
    return markdown(["arm", *(f"k = {k}" for k in stages)], rows)


def length_table(results: Results, task: str) -> str:
    """Success (%) of the same models on the task with K sub-goals; "-" where none was evaluated."""
    lengths, own = results.lengths(task), results.goals(task)
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
    """In words: seeds x initial states behind each column of `length_table`,
    of the arm that has most.
    """
    found = []
    for k in results.lengths(task):
        estimates = [
            results.at_length(task, arm, k) for arm in results.arms if results.of(task, arm)
        ]
        most = max((e.seeds, e.episodes) for e in estimates if e is not None)
        found.append(f"K = {k}: {most[1]} episodes of {most[0]} seeds")
    return "; ".join(found)


def recovery_table(results: Results) -> str:
    """Empty where no environment counts it."""
    rows = []
    for task in results.tasks:
        for arm in results.arms:
            counts = [c.recovery for c in results.of(task, arm) if c.recovery]
            if not counts:
                continue
            again, recovered = (sum(c[i] for c in counts) for i in (0, 1))
            low, high = wilson(recovered, again)
            share = (
                f"{100 * recovered / again:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                if again
                else "none to recover"
            )
            episodes = sum(len(c.success) for c in results.of(task, arm) if c.recovery)
            rows.append([task, f"`{arm}`", episodes, again, recovered, share])
    head = [
        "task",
        "arm",
        "episodes",
        "more than one attempt",
        "of these succeeded",
        "%, Wilson 95 %",
    ]
    return markdown(head, rows) if rows else ""


def iqm_table(results: Results) -> str:
    """Over those tasks that every arm of the table has finished cells of."""
    rows = []
    present = {results.kind(t) for t in results.tasks}
    groups = unique(tuple(k for k in kinds if k in present) for kinds in (("short",), LONG, KINDS))
    for kinds in groups:
        tasks = [t for t in results.tasks if results.kind(t) in kinds]
        for arm in results.arms:
            scores = [np.array([c.rate for c in results.of(t, arm)]) for t in tasks]
            if tasks and all(len(s) for s in scores):
                size = f"{len(tasks)} x {min(map(len, scores))}"
                rows.append([" + ".join(kinds), f"`{arm}`", size, percent(iqm(scores))])
    return markdown(["tasks", "arm", "tasks x seeds", "interquartile mean of success, %"], rows)


def claim_sentences(results: Results, claims: Sequence[Claim], margin: float) -> list[str]:
    def estimate(claim: Claim) -> Estimate | None:
        tasks = [t for t in results.tasks if results.kind(t) in claim.kinds]
        return results.difference(tasks, claim.arm, claim.against)

    return [sentence(claim, estimate(claim), margin) for claim in claims]
