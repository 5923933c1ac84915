"""Memory and time of scoring a rollout whose executed frames are bytes, against the same as floats.

    python -m benchmarks.score_memory [CHUNKS]

Each side is a process of its own, since a peak cannot be taken back. Floats are what
`rollout.samples.reward_inputs` made of every rollout up to commit 88b4dbf. Both sides must give the
same rewards, to the last bit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace

import torch

from wamrl.rewards.base import RewardInputs, unit_range
from wamrl.rewards.reward import RewardConfig

SHAPE = (2, 2, 224, 224, 3)  # frames, views, pixels
CHUNKS = 384


def score(mode: str, floats: bool, chunks: int) -> dict:
    """One side: MB by which the peak has grown, seconds, the sum of the rewards."""
    draw = torch.Generator().manual_seed(0)
    executed = torch.randint(0, 256, (chunks, *SHAPE), dtype=torch.uint8, generator=draw)
    inputs = RewardInputs(
        imagined=torch.rand(chunks, *SHAPE, generator=draw) if mode != "success" else executed,
        executed=executed,
        last=executed[:, 0].clone(),
        verifiable=torch.ones(chunks, 2, dtype=torch.bool),
        success=torch.zeros(chunks, dtype=torch.bool),
        offsets=(4, 8),
        imagined_offsets=(4, 8),
        executed_steps=torch.full((chunks,), 8),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    if floats:
        there = unit_range(inputs.executed)
        given = {"executed": there, "last": unit_range(inputs.last)}
        inputs = replace(inputs, imagined=there if mode == "success" else inputs.imagined, **given)
    lost = torch.zeros(chunks, dtype=torch.bool)
    rewards = RewardConfig(mode=mode).build(100)(inputs, lost, torch.arange(chunks) // 8)
    seconds = time.perf_counter() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"grown_mb": grown, "seconds": seconds, "rewards": rewards.tolist()}


def main(chunks: int) -> None:
    for mode in ("success", "composite"):
        sides = []
        for floats in (False, True):
            words = ["--side", mode, str(int(floats)), str(chunks)]
            command = [sys.executable, "-m", "benchmarks.score_memory", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            sides.append(json.loads(done.stdout))
        ours, peer = sides
        assert ours["rewards"] == peer["rewards"], mode
        shown = [f"{s['grown_mb']:,.0f} MB, {s['seconds']:.3f} s" for s in sides]
        print(f"{mode}, {chunks} chunks: bytes {shown[0]}; floats {shown[1]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side, as_floats, number = sys.argv[2:]
        print(json.dumps(score(side, as_floats == "1", int(number))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else CHUNKS)
