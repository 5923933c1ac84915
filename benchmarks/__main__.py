"""`python -m benchmarks [NAME ...]`: run benchmarks, compare with their targets, keep the numbers.

benchmarks/targets.py                     what there is and should reach, reasons of the misses
benchmarks/results/MACHINE/NAME.json      what was measured, with the machine's description
docs/benchmarks.md                        rendered from both; never written by hand
"""

from __future__ import annotations

import os

# Before torch loads OpenMP, and for the processes of the benchmarks: as the verbs of wamrl do.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("MUJOCO_GL", "egl")

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from benchmarks.machine import slug
from benchmarks.targets import BENCHMARKS, Benchmark
from wamrl.runtime.log import console

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = ("what", "ours: min, median", "peer: min, median", "ratio: min, median", "target", "")
HEAD = """# Benchmarks

Rendered by `python -m benchmarks --report-only` from `benchmarks/results/` and
`benchmarks/targets.py`; do not edit. Both sides of a row take turns, after it was asserted that
they give the same result. A ratio says how many times less ours costs than the peer, round by
round; the target is held against its median, or against the median number where there is no peer.
`python -m benchmarks` runs everything again.
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Benchmarks of the source checkout."""

    # which (default: all); the names of --list
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    # folder for the JSON files (default: benchmarks/results/MACHINE, and docs/benchmarks.md)
    out: Path | None = None
    quick: bool = False  # small sizes, to see that they run; without --out nothing is kept
    list: bool = False  # only say what there is
    # run nothing: write docs/benchmarks.md from the results that are there
    report_only: bool = False


def main(argv: list[str] | None = None) -> None:
    """Entry point: one clear sentence and a non-zero exit code for bad input."""
    options = tyro.cli(
        Options,
        args=argv,
        prog="python -m benchmarks",
        description="How fast is it here, against its targets and its peers?",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        bench(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        sys.exit(130)


def bench(o: Options) -> None:
    """Run, show, keep. ValueError for a name that is unknown, RuntimeError if one has failed."""
    if unknown := [name for name in o.names if name not in BENCHMARKS]:
        raise ValueError(f"unknown benchmark {unknown[0]!r}: choose of {', '.join(BENCHMARKS)}")
    if o.list:
        for name, benchmark in BENCHMARKS.items():
            console.print(f"{name:<18} {benchmark.title}", markup=False)
        return
    kept = o.out is None and not o.quick
    folder = o.out or RESULTS / slug()
    failed = []
    if not o.report_only:
        for name in o.names or BENCHMARKS:
            if not run(name, folder, o.quick, kept, o.out):
                failed.append(name)
    if kept:
        (ROOT / "docs" / "benchmarks.md").write_text(render(RESULTS), encoding="utf-8")
        console.print("tables -> docs/benchmarks.md")
    if failed:
        raise RuntimeError(f"{', '.join(failed)} failed: see above")


def run(name: str, folder: Path, quick: bool, kept: bool, out: Path | None) -> bool:
    """One benchmark in a process of its own; prints its table. False: it failed."""
    console.rule(name)
    with tempfile.TemporaryDirectory() as draft:
        file = (folder if kept or out else Path(draft)).resolve() / f"{name}.json"
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            "--out",
            str(file),
            *(["--quick"] if quick else []),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            return False
        console.print(table(json.loads(file.read_text(encoding="utf-8"))))
    return True


def table(record: dict) -> Table:
    """The rows of one JSON file for the console."""
    shown = Table(
        title=BENCHMARKS[record["name"]].title
        + (" (quick: not a measurement)" if record["quick"] else "")
    )
    for column in COLUMNS:
        shown.add_column(column)
    for r in record["rows"]:
        shown.add_row(
            *cells(record["name"], r)[:-1],
            style="" if verdict(record["name"], r) != "missed" else "red",
        )
    return shown


def cells(name: str, r: dict) -> tuple[str, ...]:
    """One row as text: `COLUMNS`, and the explanation of a miss or the row's note."""
    target = BENCHMARKS[name].targets.get(r["what"])
    reason = (
        [target.explanation or "not explained yet"]
        if target and verdict(name, r) == "missed"
        else []
    )
    remark = "; ".join([*reason, *filter(None, [r["note"]])])
    ours, peer, ratio = (pair(r[side]) for side in ("ours", "peer", "ratio"))
    unit = f" {r['unit']}"
    return (
        r["what"],
        ours + unit,
        peer and peer + unit,
        ratio,
        str(target) if target else "",
        verdict(name, r),
        remark,
    )


def pair(values: Sequence[float] | None) -> str:
    """Three digits: "0.21, 0.25"; one number when both are the same."""
    if values is None:
        return ""
    texts = [f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in values]
    return texts[0] if texts[0] == texts[1] else ", ".join(texts)


def verdict(name: str, r: dict) -> str:
    """ "met", "missed", or "" where nothing was aimed at."""
    target = BENCHMARKS[name].targets.get(r["what"])
    return "" if target is None else "met" if target.met((r["ratio"] or r["ours"])[1]) else "missed"


def render(results: Path) -> str:
    """The whole of docs/benchmarks.md from results/MACHINE/NAME.json."""
    parts = [HEAD]
    for folder in sorted(p for p in results.glob("*") if p.is_dir()):
        parts.append(f"## {folder.name}\n")
        for name, benchmark in BENCHMARKS.items():
            file = folder / f"{name}.json"
            if file.is_file():
                record = json.loads(file.read_text(encoding="utf-8"))
                parts.append(section(record, benchmark))
    return "\n".join(parts)


def section(record: dict, benchmark: Benchmark) -> str:
    """One benchmark: heading, who the sides are, the table, the machine."""
    lines = [f"### {record['name']}: {benchmark.title}\n", f"{benchmark.sides}\n"]
    lines += ["| " + " | ".join([*COLUMNS, "remark"]) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
    lines += ["| " + " | ".join(cells(record["name"], r)) + " |" for r in record["rows"]]
    machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
    return "\n".join([*lines, f"\n`python -m benchmarks {record['name']}`: {machine}.\n"])


if __name__ == "__main__":
    main()
