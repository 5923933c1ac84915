"""Two ways to do the same thing, timed in turns in one process; the rows go to results/NAME.json and a table.

    rows = [row("chunk, 16 environments", ours=ours, peer=peer, target=15)]
    report("pool", rows)

A and B alternate, and who begins alternates too: what else the machine does meets both alike. `ratio` is peer / ours.
The caller asserts first that both give the same.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def row(
    what: str, *, ours: Callable, peer: Callable, target: float, per: int = 1, rounds: int = 7, note: str = ""
) -> dict:
    """Seconds per unit of both sides, smallest and median of `rounds`; one call does `per` units of work."""
    rounds = 2 if "--quick" in sys.argv else rounds
    ours(), peer()  # warm-up
    times: dict[Callable, list[float]] = {ours: [], peer: []}
    for i in range(rounds):
        for side in (ours, peer) if i % 2 else (peer, ours):
            times[side].append(seconds(side) / per)
    (a, b), middle = (min(times[x]) for x in (ours, peer)), [median(times[x]) for x in (ours, peer)]
    return {
        "what": what, "ours_s": a, "peer_s": b, "ratio": b / a, "ratio_median": middle[1] / middle[0], "target": target,
        "note": note,
    }  # fmt: skip


def share(what: str, *, reached: float, target: float, note: str = "", **more: float) -> dict:
    """A row about a share of something rather than two sides."""
    return {"what": what, "ratio": reached, "target": target, "note": note, **more}


def machine() -> dict[str, str]:
    import torch

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    ).stdout.strip()  # fmt: skip
    return {
        "cpu": names[0] if names else platform.processor(), "cores": str(len(os.sched_getaffinity(0))), "gpu": gpu,
        "python": platform.python_version(), "torch": torch.__version__, "commit": commit,
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def report(name: str, rows: list[dict]) -> None:
    """Print the rows; without --quick, keep them."""
    for r in rows:
        met = "met" if r["ratio"] >= r["target"] else "MISSED"
        sides = f"{1e3 * r['ours_s']:.3g} ms against {1e3 * r['peer_s']:.3g} ms, " if "ours_s" in r else ""
        middle = f" (median {r['ratio_median']:.3g})" if "ratio_median" in r else ""
        found = f"{sides}{r['ratio']:.3g}{middle}, target {r['target']:g}: {met} {r['note']}"
        print(f"{name}: {r['what']}: {found}", flush=True)
    if "--quick" not in sys.argv:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps({"machine": machine(), "rows": rows}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
