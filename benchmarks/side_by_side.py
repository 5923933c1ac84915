"""Two sides of a comparison, timed in turns in one process,
so that whatever else the machine does hits both.

Example: `benchmarks/folded_steps.py`. A benchmark asserts that both sides give the same result,
then
    seconds = interleave({"ours": f, "peer": g}, rounds=20)
    rows = [row("what", seconds["ours"], seconds["peer"], scale=1e3, unit="ms")]
    finish("name", rows, options)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.machine import describe

Pair = tuple[float, float]  # (minimum, median) over the rounds


def parser() -> argparse.ArgumentParser:
    """What `python -m benchmarks` says to every benchmark."""
    made = argparse.ArgumentParser()
    made.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds: does it run here?"
    )
    made.add_argument("--out", type=Path, help="write the rows into this JSON file")
    return made


def options() -> argparse.Namespace:
    return parser().parse_args()


def interleave(
    sides: dict[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of every call, per side: A B, B A, A B, ..., after `warmup` unmeasured rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(-warmup, rounds):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            begin = time.perf_counter()
            sides[name]()
            if i >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def spread(values: Sequence[float]) -> Pair:
    return min(values), median(values)


def row(
    what: str,
    ours: Sequence[float],
    peer: Sequence[float],
    *,
    scale: float = 1e3,
    unit: str = "ms",
    note: str = "",
) -> dict:
    """Costs of both sides times `scale`, and per round peer / ours:
    how many times less ours costs.
    """
    ratios = [p / o for o, p in zip(ours, peer, strict=True)]
    costs = {"ours": spread([scale * s for s in ours]), "peer": spread([scale * s for s in peer])}
    return {
        "what": what,
        "unit": unit,
        **costs,
        "ratio": spread(ratios),
        "rounds": len(ratios),
        "note": note,
    }


def single(what: str, values: Sequence[float], unit: str, note: str = "") -> dict:
    """A number that stands for itself, such as megabytes."""
    both = {"ours": spread(values), "peer": None, "ratio": None}
    return {"what": what, "unit": unit, **both, "rounds": len(values), "note": note}


def finish(name: str, rows: list[dict], o: argparse.Namespace, **more) -> None:
    """Print the rows; with --out also write them, the machine and `more` as JSON."""
    for r in rows:
        peer = f", peer {r['peer'][0]:.4g} / {r['peer'][1]:.4g}" if r["peer"] else ""
        ratio = f", ratio {r['ratio'][0]:.2f} / {r['ratio'][1]:.2f}" if r["ratio"] else ""
        print(
            f"{r['what']}: ours {r['ours'][0]:.4g} / {r['ours'][1]:.4g} {r['unit']}{peer}{ratio}  "
            f"{r['note']}"
        )
    if o.out:
        o.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"name": name, "quick": o.quick, "machine": describe(), "rows": rows, **more}
        o.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
