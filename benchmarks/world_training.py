"""A training step of the world model as a share of what the machine can do: FLOP/s against its fastest matmul.

FLOPs of forward and backward as counted by torch, plus nothing for the optimiser, whose time counts. CPU: float32, one
thread and all; GPU: bfloat16 autocast. The matmul rate is the best of a few square sizes, measured in the same minute.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from side_by_side import report, seconds, share
from torch.utils.flop_counter import FlopCounterMode

from wamrl.cli import find_recipe
from wamrl.config import Config
from wamrl.experiment import build_wam, device
from wamrl.models.check import probe
from wamrl.sft import SFT, SFTConfig
from wamrl.types import Clip

QUICK = "--quick" in sys.argv


def matmul_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the best square product."""
    best = 0.0
    for n in (512, 1024) if device() == "cpu" else (4096, 8192):
        a = torch.randn(n, n, device=device(), dtype=dtype)
        for _ in range(2 if QUICK else 8):
            best = max(best, 2 * n**3 / timed(lambda a=a: a @ a))
    return best


def timed(work) -> float:
    def whole() -> None:
        work()
        if device() == "cuda":
            torch.cuda.synchronize()

    return seconds(whole)


def step_rate(cfg: Config, batch: int, rounds: int) -> tuple[float, float, float]:
    """FLOPs of one SFT step (world and actor), its best seconds, parameters."""
    wam = build_wam(cfg)
    clip = Clip.cat([probe(wam, seed) for seed in range(-(-batch // 3))])[slice(0, batch)]
    sft = SFT(wam, SFTConfig(batch=batch), seed=0)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=device() == "cuda"):
            sft.step(lambda n, g, part: clip[part])

    with FlopCounterMode(display=False) as counter:
        step()
    times = [timed(step) for _ in range(2 if QUICK else rounds)]
    return counter.get_total_flops(), min(times), sum(p.numel() for p in wam.parameters())


def main() -> None:
    cfg = find_recipe("quickstart")()
    large = replace(cfg.model, world=replace(cfg.model.world, width=768, depth=12, heads=12, taps=(4, 8, 12)))
    gpu, rows = device() == "cuda", []
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, model, batch, rounds in (("nano", cfg.model, 32, 7), ("0.1 B", large, 64 if gpu else 4, 3)):
            rate = matmul_rate(torch.bfloat16 if gpu else torch.float32)
            flops, best, size = step_rate(replace(cfg, model=model), batch, rounds)
            note = f"{flops / best / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s, {size / 1e6:.1f} M parameters, batch {batch}"
            what = f"{name}, " + ("GPU, bfloat16" if gpu else f"CPU, {threads} threads")
            rows.append(share(what, reached=flops / best / rate, target=0.4 if gpu else 0.5, note=note, seconds=best))
    report("world_training", rows)


if __name__ == "__main__":
    main()
