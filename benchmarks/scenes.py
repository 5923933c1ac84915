"""What a simulated scene costs: seconds to build and memory, the first of a process and the others.

python -m benchmarks.scenes RECIPE ... [--scenes 16]

A pool holds `pool.n_envs` scenes, 32 unless said otherwise, shared out to its processes: what one
takes decides how long a run needs to start, and whether a laptop can hold it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from wamrl.config import Config
from wamrl.recipes import find


def resident_mb() -> float:
    """Of this process, MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(recipe: str, scenes: int) -> str:
    """One row of the table; everything is imported by the first scene."""
    env = find.build(recipe, Config).env
    seconds = []
    megabytes = []
    held = []
    for _ in range(scenes):
        before = resident_mb()
        begin = time.perf_counter()
        held.append(env.build())
        seconds.append(time.perf_counter() - begin)
        megabytes.append(resident_mb() - before)
    more_s = statistics.median(seconds[1:])
    more_mb = statistics.fmean(megabytes[1:])
    return f"| {recipe} | {seconds[0]:.3f} | {megabytes[0]:.0f} | {more_s:.3f} | {more_mb:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", help="as `wamrl list` names them")
    parser.add_argument("--scenes", type=int, default=16, help="built in each process, >= 2")
    o = parser.parse_args()
    if o.scenes < 2:
        parser.error("--scenes must be 2 or more: the first one and others")
    if len(o.recipes) == 1:
        print(measure(o.recipes[0], o.scenes), flush=True)
        return
    print("| recipe | first, s | first, MB | each other, s | each other, MB |")
    print("|---|---|---|---|---|", flush=True)
    for recipe in o.recipes:  # a process each: imports and caches of one are not the other's
        again = [sys.executable, "-m", "benchmarks.scenes", recipe, "--scenes", str(o.scenes)]
        subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
