"""Does torch.compile of the whole denoising loop pay, and what does the compilation cost?

On CUDA the compiled loop is a captured graph;
a last row captures the loop as it is, without a compiler.
The loop is the nano model's imagination in two Euler steps. It is off by default in wamrl: on a CPU
the gain is small beside the seconds of compilation, which every new batch size costs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.models import NANO, build, clips
from benchmarks.side_by_side import finish, interleave, options, row, single
from benchmarks.world_training import DEVICE, KIND, finished
from wamrl.models.flow import euler, time_grid

STEPS = 2
TOLERANCE = 1e-3 if DEVICE == "cuda" else 1e-4  # of latents in [-1, 1]; kernels add in other orders


def measure(batch: int, rounds: int) -> list[dict]:
    wam = build(NANO, DEVICE).eval()
    with torch.no_grad():
        context = wam.encode(clips(wam, batch).obs)
    z, grid = wam.world.noise(torch.arange(batch)), time_grid(STEPS)

    @torch.no_grad()
    def loop(z: torch.Tensor) -> torch.Tensor:
        return euler(lambda z, s: wam.world.velocity(z, s, context), z, grid)

    fast = torch.compile(
        loop, dynamic=False, mode="reduce-overhead" if DEVICE == "cuda" else "default"
    )
    begin = time.perf_counter()
    worst = (fast(z) - loop(z)).abs().max().item()
    cost = time.perf_counter() - begin
    assert worst < TOLERANCE, f"the compiled loop differs by {worst:.1e}"
    seconds = interleave(
        {"ours": finished(lambda: fast(z)), "peer": finished(lambda: loop(z))}, rounds, warmup=3
    )
    rows = [
        row(f"denoising loop, batch {batch}, {KIND}", seconds["ours"], seconds["peer"]),
        single(f"compilation, batch {batch}, {KIND}", [cost], "s"),
    ]
    return rows + ([captured(loop, z, batch, rounds)] if DEVICE == "cuda" else [])


def captured(
    loop: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor, batch: int, rounds: int
) -> dict:
    """The loop as one CUDA graph, against its kernels launched one by one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries make their workspaces before anything is captured
        for _ in range(3):
            loop(z)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = loop(z)
    graph.replay()
    worst = (out - loop(z)).abs().max().item()
    assert worst < TOLERANCE, f"the captured loop differs by {worst:.1e}"
    seconds = interleave(
        {"ours": finished(graph.replay), "peer": finished(lambda: loop(z))}, rounds, warmup=3
    )
    return row(f"captured denoising loop, batch {batch}, {KIND}", seconds["ours"], seconds["peer"])


if __name__ == "__main__":
    o = options()
    rows = [measure(batch, 3 if o.quick else 40) for batch in ((2,) if o.quick else (1, 32))]
    finish("compiled_loop", sum(rows, []), o)
