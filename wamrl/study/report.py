"""The folder of a study as its reader wants it: report.md, two CSV files, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wamrl.runtime.files import write_text
from wamrl.study import plots, tables
from wamrl.study.claims import MIN_SEEDS, Claim
from wamrl.study.results import CellResult, Results

ABOUT = "about.json"  # of a study's folder: what its arms test, and what it claims

_HOW = """\
Success: on held-out initial states that nothing was trained on, the same for all arms and seeds.
Each model acts by the sampler that suits it best on training states (`sampler`; `zero` and `ode`
are without noise, `explore` is not). Each arm of a task and seed starts from the same base
model. Brackets are 95 % intervals. Success and differences: hierarchical bootstrap (seeds, then
initial states within each drawn seed, both arms paired; 10,000 resamples, percentiles). **With 3
seeds an interval is only as good as 3 seeds can be.** Where all values agree the interval is
binomial instead. p: McNemar's exact test of the pairs of all seeds together, Holm-corrected over
the arms of a task; it takes pairs as independent, so it speaks of these trained models, the
interval also of other seeds. Interquartile mean: over tasks x seeds, stratified bootstrap
(rliable). `results.csv` has Wilson intervals per cell."""

_RULE = """\
Rule, on the hierarchical interval [low, high] of the paired difference pooled over the claim's
tasks, first match: a gain is *supported* if low > 0, *not supported* if high < {margin:g}
points, else *undecided*. "Does not help" is *not supported* if low > 0, *supported* if high <
{margin:g} points, else *undecided*. Fewer than {seeds} seeds decide nothing."""


_LENGTHS = """\
Success (%) at K sub-goals of the same models, trained at one K only, by their deployed sampler;
the same initial states for all arms ({states}):"""


@dataclass(frozen=True, kw_only=True)
class ReportText:
    """What a report says beside numbers."""

    name: str
    arms: dict[str, str]  # name -> what it tests; in the order of tables and colours
    tasks: tuple[str, ...]
    claims: tuple[Claim, ...]
    margin: float  # of the claims' rule, rate
    command: str
    missing: tuple[str, ...]  # cells without a result


def write_files(out: Path, cells: Sequence[CellResult], text: ReportText) -> None:
    """Write everything into `out`, from the cells that are finished; ValueError if none is."""
    if not cells:
        raise ValueError(
            f"no cell of the study in {out} is finished yet: run it first, without --report-only"
        )
    arms = list(text.arms)
    results = Results(cells, arms, text.tasks)
    comparisons = tables.comparison_rows(results)
    tables.write_csv(out / "results.csv", tables.RESULT_COLUMNS, tables.result_rows(results))
    tables.write_csv(out / "comparisons.csv", tables.COMPARISON_COLUMNS, comparisons)
    plots.write_plots(out, results, plots.looks_of(arms))
    paragraphs = [
        *_opening(results, text),
        *_claims(results, text),
        *_arms(text),
        *(part for task in results.tasks for part in _task(results, task, comparisons)),
        *_over_tasks(results),
    ]
    write_text(out / "report.md", "\n\n".join(paragraphs) + "\n")


def _opening(results: Results, text: ReportText) -> list[str]:
    finished = len(results.cells)
    total = finished + len(text.missing)
    parts = [f"# Study {text.name}", f"`{text.command}`: {finished} of {total} cells finished."]
    if text.missing:
        shown = ", ".join(text.missing[:12]) + (" ..." if len(text.missing) > 12 else "")
        parts.append(f"**Not finished, so every number below may still change:** {shown}.")
    return [*parts, _HOW]


def _claims(results: Results, text: ReportText) -> list[str]:
    if not text.claims:
        return []
    rule = _RULE.format(margin=100 * text.margin, seeds=MIN_SEEDS)
    sentences = tables.claim_sentences(results, text.claims, text.margin)
    return ["## Claims", rule, "\n".join(f"- {sentence}" for sentence in sentences)]


def _arms(text: ReportText) -> list[str]:
    rows = [[f"`{arm}`", what] for arm, what in text.arms.items()]
    return ["## Arms", tables.markdown(["arm", "what it tests"], rows)]


def _task(results: Results, task: str, comparisons: list[dict]) -> list[str]:
    goals = results.goals(task)
    lengths = results.lengths(task)
    parts = [
        f"## {task} ({results.kind(task)})",
        tables.task_table(results, task, comparisons),
        f"![success per arm](arms_{task}.png)",
        tables.cost_table(results, task),
    ]
    if by_sampler := tables.sampler_rows(results, task):
        parts.append("Success (%) of the same models by each sampler, mean (seed by seed):")
        parts.append(tables.markdown(tables.BY_SAMPLER, by_sampler))
    if goals > 1:  # else it is the success once more
        parts.append("Episodes (%) that completed at least k sub-goals:")
        parts.append(tables.horizon_table(results, task))
    if lengths:
        parts.append(_LENGTHS.format(states=tables.length_states(results, task)))
        parts.append(tables.length_table(results, task))
    if results.has_horizon(task):
        parts.append(f"![horizon](horizon_{task}.png)")
    return [*parts, f"![learning curves](learning_{task}.png)"]


def _over_tasks(results: Results) -> list[str]:
    parts = ["## Over tasks", tables.iqm_table(results)]
    if recovery := tables.recovery_table(results):
        parts.append(
            "## Recovery: episodes with more than one attempt, and how many of these succeeded"
        )
        parts.append(recovery)
    return parts
