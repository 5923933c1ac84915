"""The verb `study`: many arms from one base, compared."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from wamrl.commands.options import StudyOptions
from wamrl.recipes.find import build, smoke
from wamrl.runtime.log import console
from wamrl.study import Cell, StudyConfig
from wamrl.study.cells import BUSY, run_cell
from wamrl.study.runner import matching_cells, open_study, run_study, write_report


def study(o: StudyOptions) -> None:
    """Run and report a study; a cell's process gets the same words and `--cell`."""
    cfg = _asked(o)
    out = o.out or Path("runs") / f"study-{cfg.name}"
    shown = " ".join(("wamrl study", *o.words))
    matching_cells(cfg, o.only)  # before anything is made
    if o.report_only and not out.is_dir():
        raise ValueError(f"there is no study at {out}: run it first, without --report-only")
    open_study(cfg, out)
    if o.cell is not None:
        task, arm, seed = (o.cell.split("/") + ["", ""])[:3]
        if not run_cell(cfg, Cell(task, arm, int(seed) if seed.isdigit() else -1), out):
            raise SystemExit(BUSY)
    elif o.report_only:
        write_report(cfg, out, shown)
        console.print(f"report, tables, figures -> {out}", markup=False)
    else:
        command = [sys.executable, "-m", "wamrl", "study", *o.words]
        run_study(cfg, out, command, o.only, shown)


def _asked(o: StudyOptions) -> StudyConfig:
    cfg = build(o.name, StudyConfig)
    if o.smoke:
        tasks = tuple(replace(task, config=smoke(task.config)) for task in cfg.tasks)
        cfg = replace(cfg, name=f"{cfg.name}-smoke", tasks=tasks, seeds=cfg.seeds[:1])
    jobs = cfg.jobs if o.jobs is None else o.jobs
    return replace(cfg, jobs=jobs, keep_models=cfg.keep_models or o.keep_models)
