"""The verb `study`: many arms from one base, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wamrl.runtime.log import console
from wamrl.study import Cell, StudyConfig
from wamrl.study.cells import BUSY, run_cell
from wamrl.study.runner import open_study, run_study, write_report


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Where and how a study runs; what it is stands in its recipe."""

    out: Path | None = None  # its folder, to which one returns to go on (default: runs/study-NAME)
    jobs: int | None = None  # cells at once (default: the study's own; 0: cores / threads)
    only: str = "*"  # run the cells that match this glob of TASK/ARM/SEED, and the bases they need
    report_only: bool = False  # run nothing: tables and figures of what is finished
    smoke: bool = False  # everything, but tiny, and one seed: does it run here?
    cell: str | None = None  # for the runner's own use: this one cell, in this process


def study(cfg: StudyConfig, o: StudyOptions, command: Sequence[str], shown: str) -> None:
    """Run and report a study. command: runs one cell when `--cell TASK/ARM/SEED` is appended."""
    out = o.out or Path("runs") / f"study-{cfg.name}"
    if o.jobs is not None:
        cfg = replace(cfg, jobs=o.jobs)
    open_study(cfg, out)
    if o.cell is not None:
        task, arm, seed = (o.cell.split("/") + ["", ""])[:3]
        if not run_cell(cfg, Cell(task, arm, int(seed) if seed.isdigit() else -1), out):
            raise SystemExit(BUSY)
    elif o.report_only:
        write_report(cfg, out, shown)
        console.print(f"report, tables, figures -> {out}", markup=False)
    else:
        run_study(cfg, out, command, o.only, shown)
