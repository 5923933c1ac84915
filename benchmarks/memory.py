"""Does anything grow? Cycles of rollout and update; memory, file descriptors and processes before and after.

python benchmarks/memory.py [--cycles 300]     target: below 0.5 MB of resident memory per cycle (least squares, second
half of the cycles, so that caches and the clip buffer have filled)
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from side_by_side import report, share

from wamrl.cli import find_recipe, smoke
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import collect
from wamrl.data.recording import InMemory
from wamrl.experiment import build_wam
from wamrl.train import Learner

PAGE = resource.getpagesize()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> int:
    return sum(len(Path(f"/proc/self/task/{t}/children").read_text().split()) for t in os.listdir("/proc/self/task"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    cycles = 12 if args.quick else args.cycles
    torch.set_num_threads(1)
    cfg = smoke(find_recipe("point")())
    cfg = replace(cfg, train=replace(cfg.train, iterations=cycles, online=replace(cfg.train.online, capacity=64)))
    episodes = collect(replace(cfg.demos("demo"), n_workers=0))
    m = cfg.model
    demos = ClipDataset(InMemory(episodes), m.history_offsets, m.frame_offsets, m.chunk)
    wam, before, memory = build_wam(cfg), (open_files(), children()), []
    with cfg.pool().build() as pool:
        learner = Learner(cfg, wam, demos, pool.spec.horizon)
        for _ in range(cycles):
            learner.iterate(pool)
            memory.append(resident_mb())
    late = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(late)), late, 1)[0])
    after = (open_files(), children())
    assert after[1] == before[1] and after[0] <= before[0] + 2, f"files, processes: {before} before, {after} after"
    note = f"{memory[0]:.0f} MB after 1 cycle, {late[0]:.0f} after {cycles // 2}, {late[-1]:.0f} after {cycles}"
    row = share(f"0.5 MB / growth per cycle, {cycles} cycles", reached=0.5 / max(slope, 1e-3), target=1.0, note=note)
    print(f"growth {slope:.4f} MB per cycle", file=sys.stderr)
    report("memory", [row | {"slope_mb": slope}])


if __name__ == "__main__":
    main()
