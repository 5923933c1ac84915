"""Runs the cells of a study, several at once, each in a process of its own; none twice.

Any number of runners, also on machines that share a folder, work on one study: each takes cells
that nobody holds. Killing a runner or a cell at any time loses at most what came after the cell's
last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from wamrl import report
from wamrl.runtime.cores import cores
from wamrl.runtime.files import locked, read_json, write_text
from wamrl.runtime.log import console, duration
from wamrl.runtime.processes import sigterm_interrupts
from wamrl.runtime.restore import config_difference
from wamrl.study.cells import BUSY, LOG, finished, result, tidy
from wamrl.study.config import BASE, Cell, StudyConfig
from wamrl.study.report import ABOUT, ReportText, write_files

_POLL_S = 0.1
_POLL_OTHERS_S = 2.0  # seconds between looks at cells that other runners hold
_RESTARTS = 2  # of a cell that a signal has killed (out of memory): it resumes
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def open_study(study: StudyConfig, out: Path) -> None:
    """Make the folder, or make sure that it belongs to this very study."""
    study.validate()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "study.json"
    mine = json.loads(json.dumps(study.identity()))
    if not path.is_file():
        if any(p.is_dir() for p in out.iterdir()):
            raise ValueError(
                f"{out} holds other things and no study.json: "
                "choose an empty or new folder with --out"
            )
        write_text(path, json.dumps(mine, indent=1))
    saved = read_json(path, "study folder", "choose another folder with --out")
    if (fault := config_difference(saved, json.loads(json.dumps(mine)), "study")) is not None:
        raise ValueError(f"{out} holds another study ({fault}): choose another folder with --out")
    write_text(out / ABOUT, json.dumps(_about(study), indent=1) + "\n")


def matching_cells(study: StudyConfig, only: str) -> list[Cell]:
    """Never none: ValueError of one sentence. only: a glob of TASK/ARM/SEED."""
    found = study.cells(only)
    if not found:
        raise ValueError(
            f"no cell of {study.name} matches {only!r}: give a glob of TASK/ARM/SEED, as "
            "'reach/*/0'"
        )
    return found


def _about(study: StudyConfig) -> dict:
    """What `wamrl report` tells of a study beside numbers; it decides none of them."""
    return {
        "arms": _tests(study),
        "claims": [asdict(claim) for claim in study.claims],
        "margin": study.margin,
    }


def _tests(study: StudyConfig) -> dict[str, str]:
    """Arm -> what it is there to show, the base first."""
    return {BASE: "the base model, no further training"} | {a.name: a.tests for a in study.arms}


@dataclass
class _Slot:
    """One place for a process."""

    number: int
    cell: Cell
    process: subprocess.Popen
    begin: float = field(default_factory=time.monotonic)


class Runner:
    """Starts each cell as soon as its base and a slot are there, and waits for all of them."""

    def __init__(self, study: StudyConfig, out: Path, command: Sequence[str], only: str = "*"):
        """command: what runs one cell of this study, with `--cell TASK/ARM/SEED` appended.

        only: a glob of TASK/ARM/SEED; ValueError if no cell matches.
        """
        self.study = study
        self.out = Path(out)
        self.command = list(command)
        self.cells = matching_cells(study, only)
        self.todo = [c for c in self.cells if not finished(self.out, c)]
        self.jobs = study.jobs or max(1, cores() // study.threads)
        self.slots: dict[int, _Slot] = {}
        self.failed: dict[Cell, str] = {}  # why each ended in an error
        self.deaths: Counter[Cell] = Counter()
        self.elsewhere: dict[Cell, float] = {}  # held by another runner: when to look again
        self.devices = visible_devices()
        self.ran = 0
        self.begin = time.monotonic()

    def run(self) -> dict[Cell, str]:
        """Returns the cells that failed, with the reason."""
        done = [cell for cell in self.cells if cell not in self.todo]
        progress = f"{len(done)} of {len(self.cells)} cells are finished"
        console.print(f"{self.study.name}: {progress}, {self.jobs} at a time", markup=False)
        for cell in done:
            with locked(cell.folder(self.out)) as mine:
                if mine:  # a cell that was killed while it cleaned up
                    # models that an earlier call was asked to keep stay
                    tidy(cell.folder(self.out), keep_models=True)
        try:
            with sigterm_interrupts():
                self._until_done()
        finally:
            for slot in self.slots.values():
                slot.process.terminate()
            for slot in self.slots.values():
                slot.process.wait()
        return self.failed

    def _until_done(self) -> None:
        while self.todo or self.slots:
            self._reap()
            self._skip_orphans()
            while len(self.slots) < self.jobs and (cell := self._next()) is not None:
                self._start(cell)
            time.sleep(_POLL_S)

    def _next(self) -> Cell | None:
        """The first cell that could start now; what another runner has finished is dropped."""
        for cell in list(self.todo):
            if finished(self.out, cell):
                self.todo.remove(cell)
                self._tell(cell, "done elsewhere")
            elif (cell.arm == BASE or finished(self.out, cell.base)) and self._free(cell):
                return cell
        return None

    def _free(self, cell: Cell) -> bool:
        """Whether nobody holds its lock.

        The cell's process takes the lock itself; if it loses the race it exits with BUSY.
        """
        if time.monotonic() < self.elsewhere.get(cell, 0):
            return False
        with locked(cell.folder(self.out)) as mine:
            if not mine:
                self.elsewhere[cell] = time.monotonic() + _POLL_OTHERS_S
        return mine

    def _skip_orphans(self) -> None:
        """Arms whose base has failed can never start."""
        for cell in [c for c in self.todo if c.base in self.failed]:
            self.todo.remove(cell)
            self.failed[cell] = "its base failed"

    def _start(self, cell: Cell) -> None:
        number = min(set(range(self.jobs)) - self.slots.keys())
        env = os.environ | dict.fromkeys(_THREADS, str(self.study.threads))
        env["PYTHONUNBUFFERED"] = "1"
        if self.devices:
            env["CUDA_VISIBLE_DEVICES"] = self.devices[number % len(self.devices)]
        self.todo.remove(cell)
        with open(cell.folder(self.out) / LOG, "a", encoding="utf-8") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} start\n")
            log.flush()
            process = subprocess.Popen(
                [*self.command, "--cell", str(cell)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
            )
        self.slots[number] = _Slot(number=number, cell=cell, process=process)

    def _reap(self) -> None:
        """Note every cell that has ended, well or not."""
        for slot in [s for s in self.slots.values() if s.process.poll() is not None]:
            del self.slots[slot.number]
            cell = slot.cell
            code = slot.process.returncode
            if code == 0 and finished(self.out, cell):
                self.ran += 1
                self._tell(cell, duration(time.monotonic() - slot.begin))
            elif code == BUSY:
                self.elsewhere[cell] = time.monotonic() + _POLL_OTHERS_S
                self.todo.append(cell)
            elif code < 0 and self.deaths[cell] < _RESTARTS:
                self.deaths[cell] += 1
                console.print(f"{cell} was killed by signal {-code}: it resumes", markup=False)
                self.todo.insert(0, cell)
            else:
                self.failed[cell] = _reason(cell.folder(self.out) / LOG, code)
                console.print(f"{cell} FAILED: {self.failed[cell]}", markup=False)

    def _tell(self, cell: Cell, how: str) -> None:
        arm = report.read_summary(cell.folder(self.out) / "summary.json")["arms"]["after"]
        left = len(self.todo) + len(self.slots)
        done = len(self.cells) - left - len(self.failed)
        line = f"[{done}/{len(self.cells)}] {cell}: {arm['successes']}/{arm['episodes']} = "
        line += f"{arm['rate']:.1%}, {how}"
        if self.ran and left:
            each = (time.monotonic() - self.begin) / self.ran
            line += f", about {duration(each * left)} left"
        console.print(line, markup=False)


def _reason(log: Path, code: int) -> str:
    """The last line of a failed cell's log."""
    lines = [x for x in log.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
    return f"{lines[-1] if lines else 'no message'} (exit code {code}, see {log})"


def visible_devices() -> list[str]:
    """CUDA devices to deal out, as CUDA_VISIBLE_DEVICES names them; empty on a machine without."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [d.strip() for d in named.split(",") if d.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]


def write_report(study: StudyConfig, out: Path, command: str) -> None:
    """Tables and figures of the cells that are finished; ValueError if none is."""
    done = [cell for cell in study.cells() if finished(out, cell)]
    text = ReportText(
        name=study.name,
        arms=_tests(study),
        tasks=tuple(t.name for t in study.tasks),
        claims=study.claims,
        margin=study.margin,
        command=command,
        missing=tuple(str(cell) for cell in study.cells() if cell not in done),
    )
    write_files(out, [result(study, cell, out) for cell in done], text)


def run_study(study: StudyConfig, out: Path, command: Sequence[str], only: str, shown: str) -> None:
    """Run what is missing, then report; RuntimeError naming the cells that failed."""
    failed = Runner(study, out, command, only).run()
    if failed:
        with contextlib.suppress(ValueError):  # perhaps nothing at all is finished
            write_report(study, out, shown)
        reasons = "; ".join(f"{cell}: {why}" for cell, why in failed.items())
        raise RuntimeError(f"{len(failed)} cells failed: {reasons}")
    write_report(study, out, shown)
    console.print(f"report, tables, figures -> {out}", markup=False)
