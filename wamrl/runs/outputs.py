"""What a finished run shows: the table on the console, the learning curve."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from wamrl import report
from wamrl.config import Config
from wamrl.runtime.log import console, decorative, duration, read_metrics
from wamrl.stats.paired import Paired
from wamrl.types import SAMPLERS

COLUMNS = (
    "",
    "success",
    "95 % interval",
    "sampler",
    "mean length",
    "world-model error / copying (held-out)",
)


@decorative("learning curve")
def write_curve(run: Path) -> None:
    """learning_curve.png, of what the run has logged; of a suite also task_curves.png."""
    rows = read_metrics(run)
    if by_task := report.task_curves(rows):
        report.learning_curve(
            run / "task_curves.png",
            by_task,
            title=f"{run.name}, each task",
            x_label="online episodes so far",
        )
    curves, thin = report.run_curves(rows, SAMPLERS)
    report.learning_curve(
        run / "learning_curve.png",
        curves,
        thin=thin,
        title=run.name,
        x_label="online episodes so far",
    )


def print_table(cfg: Config, arms: dict[str, dict], pair: Paired, run: Path, seconds: float):
    """arms: those of the summary, by name. pair: after - before. seconds: of the online loop."""
    episodes = arms["before"]["episodes"]
    table = Table(title=f"{cfg.name}, seed {cfg.seed}, {episodes} held-out initial states")
    for column in COLUMNS:
        table.add_column(column)
    for name, arm in arms.items():
        low, high = arm["wilson95"]
        table.add_row(
            name,
            f"{arm['rate']:.1%}",
            f"{low:.1%} to {high:.1%}",
            arm["sampler"],
            f"{arm['mean_length']:.1f}",
            report.ratio_text(arm["error_over_copy"]),
        )
    console.print(table)
    console.print(
        f"difference in points, 95 % interval: {pair.points} "
        f"({pair.gained} states gained, {pair.lost} lost, McNemar p = {pair.p_value:.3g})",
        markup=False,
    )
    console.print(
        f"{duration(seconds)} online; videos, learning curve, summary -> {run}", markup=False
    )


def print_tasks(arms: dict[str, dict], pairs: dict[str, Paired]) -> None:
    """A line per task of a suite: before, after, and their difference; nothing for one task."""
    if not pairs:
        return
    table = Table(title="each task", caption="differences: points, 95 % interval")
    for column in ("", *arms, "difference"):
        table.add_column(column)
    for task, pair in pairs.items():
        rates = []
        for arm in arms.values():
            found = arm["tasks"][task]
            rates.append(f"{found['successes']}/{found['episodes']} = {found['rate']:.1%}")
        table.add_row(task, *rates, pair.points)
    console.print(table)
