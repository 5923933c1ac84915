"""The folder of a study as its reader wants it: report.md, two CSV files, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wamrl.study import plots as study_plots
from wamrl.study import tables as study_tables
from wamrl.study.claims import MIN_SEEDS, Claim
from wamrl.study.results import CellResult, Results

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
class StudyText:
    """What a report says beside numbers. `arms`: name -> what it tests;
    order is that of tables and colours.
    """

    name: str
    arms: dict[str, str]
    tasks: tuple[str, ...]
    claims: tuple[Claim, ...]
    margin: float  # of the claims' rule, rate
    command: str
    missing: tuple[str, ...]  # cells without a result


def write_study(out: Path, cells: Sequence[CellResult], text: StudyText) -> None:
    """Write everything into `out`, from the cells that are finished; ValueError if none is."""
    if not cells:
        raise ValueError(
            f"no cell of the study in {out} is finished yet: run it first, without --report-only"
        )
    results = Results(cells, list(text.arms), text.tasks)
    comparisons = study_tables.comparison_rows(results)
    rows = [
        study_tables.result_row(c)
        for t in results.tasks
        for a in results.arms
        for c in results.of(t, a)
    ]
    study_tables.write_csv(out / "results.csv", study_tables.RESULT_COLUMNS, rows)
    study_tables.write_csv(out / "comparisons.csv", study_tables.COMPARISON_COLUMNS, comparisons)
    style = study_plots.styles(list(text.arms))
    for task in results.tasks:
        study_plots.arms_plot(out / f"arms_{task}.png", results, task, style)
        study_plots.horizon_plot(out / f"horizon_{task}.png", results, task, style)
        study_plots.learning_plot(out / f"learning_{task}.png", results, task, style)
    draft = out / "report.tmp"
    draft.write_text("\n\n".join(_paragraphs(results, comparisons, text)) + "\n", encoding="utf-8")
    draft.replace(out / "report.md")


def _paragraphs(results: Results, comparisons: list[dict], text: StudyText) -> list[str]:
    total = len(results.cells) + len(text.missing)
    lines = [
        f"# Study {text.name}",
        f"`{text.command}`: {len(results.cells)} of {total} cells finished.",
    ]
    if text.missing:
        shown = ", ".join(text.missing[:12]) + (" ..." if len(text.missing) > 12 else "")
        lines.append(f"**Not finished, so every number below may still change:** {shown}.")
    lines.append(_HOW)
    if text.claims:
        sentences = study_tables.claim_sentences(results, text.claims, text.margin)
        lines += ["## Claims", _RULE.format(margin=100 * text.margin, seeds=MIN_SEEDS)]
        lines.append("\n".join(f"- {s}" for s in sentences))
    lines += [
        "## Arms",
        study_tables.markdown(
            ["arm", "what it tests"], [[f"`{a}`", w] for a, w in text.arms.items()]
        ),
    ]
    for task in results.tasks:
        lines += [
            f"## {task} ({results.kind(task)})",
            study_tables.task_table(results, task, comparisons),
        ]
        lines += [f"![success per arm](arms_{task}.png)", study_tables.cost_table(results, task)]
        if results.goals(task) > 1:  # else it is the success once more
            lines += [
                "Episodes (%) that completed at least k sub-goals:",
                study_tables.horizon_table(results, task),
            ]
        if results.lengths(task):
            lines.append(_LENGTHS.format(states=study_tables.length_states(results, task)))
            lines.append(study_tables.length_table(results, task))
        if results.goals(task) > 1 or results.lengths(task):
            lines.append(f"![horizon](horizon_{task}.png)")
        lines.append(f"![learning curves](learning_{task}.png)")
    lines += ["## Over tasks", study_tables.iqm_table(results)]
    if recovery := study_tables.recovery_table(results):
        lines += [
            "## Recovery: episodes with more than one attempt, and how many of these succeeded",
            recovery,
        ]
    return lines
