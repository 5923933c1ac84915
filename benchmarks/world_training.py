"""How much of the machine's arithmetic does a training step of the world model use?

Ours: FLOP/s of forward + backward + AdamW (FLOPs counted by torch,
which counts matrix products and attention only).
Peer: FLOP/s of the best of a few square matrix products on the same device with as many threads:
what can be had. The ratio is therefore the model FLOPs utilisation against the measured, not the
advertised, peak. On CUDA both sides run in bfloat16 (autocast, float32 weights), on a CPU in
float32; where that CPU has units for bfloat16, a last pair of rows holds a step in it
(`model.compute=bfloat16`) against one in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import BASE, LARGE, NANO, build, clips
from benchmarks.side_by_side import finish, interleave, parser, row
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.runtime.cores import fast_bfloat16

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (2048, 4096, 8192) if DEVICE == "cuda" else (256, 512, 1024, 2048)
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
KIND = "CUDA bfloat16" if DEVICE == "cuda" else "CPU float32"


def finished(work: Callable[[], object]) -> Callable[[], None]:
    """`work`, and what it has put on the accelerator is done too."""

    def run() -> None:
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


def in_bfloat16(name: str, config: WAMConfig, batch: int, rounds: int) -> dict:
    """A step in bfloat16 against one in float32, from the same weights."""
    wams = {"ours": build(config, DEVICE).train(), "peer": build(config, DEVICE).train()}
    steps = {
        side: training_step(wam, batch, torch.bfloat16 if side == "ours" else torch.float32)
        for side, wam in wams.items()
    }
    first = {side: step() for side, step in steps.items()}
    assert abs(first["ours"] / first["peer"] - 1) < 0.02, f"the losses differ: {first}"
    seconds = interleave(steps, rounds)
    return row(
        f"training step, {name}, CPU bfloat16 against float32", seconds["ours"], seconds["peer"]
    )


def best_product() -> tuple[Callable[[], None], float]:
    """The square matrix product with the most FLOP/s,
    repeated for about 50 ms on a CPU, and its FLOPs.
    """
    found = []
    for n in SIZES:
        a, b = torch.randn(2, n, n, device=DEVICE, dtype=DTYPE)
        out, many = torch.empty_like(a), max(1, 2 * (SIZES[-2] // n) ** 3)
        run = finished(
            lambda a=a, b=b, out=out, many=many: [torch.mm(a, b, out=out) for _ in range(many)]
        )
        seconds = min(interleave({"mm": run}, 3)["mm"])
        found.append((2 * n**3 * many / seconds, run, 2.0 * n**3 * many))
    return max(found, key=lambda f: f[0])[1:]


def training_step(wam: WAM, batch: int, dtype: torch.dtype = DTYPE) -> Callable[[], float]:
    """Video loss of `batch` clips, forward + backward + AdamW as in `wamrl/sft.py`;
    calls return the loss.
    """
    wam.compute, clip, seeds = dtype, clips(wam, batch), torch.arange(batch)
    optimizer = torch.optim.AdamW(
        wam.world.parameters(), 1e-4, weight_decay=0.01, betas=(0.9, 0.95), fused=True
    )

    def step() -> float:
        loss = wam.video_loss(clip, wam.encode(clip.obs), seeds).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def utilisation(name: str, config: WAMConfig, batch: int, rounds: int) -> dict:
    wam = build(config, DEVICE).train()
    step, (product, product_flops) = training_step(wam, batch), best_product()
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    parameters = sum(p.numel() for p in wam.world.parameters())
    assert flops > 0, "torch counted nothing"
    seconds = interleave({"ours": finished(step), "peer": product}, rounds)
    ours, peer = [s / flops for s in seconds["ours"]], [s / product_flops for s in seconds["peer"]]
    rates = f"{1 / min(ours) / 1e9:.0f} of {1 / min(peer) / 1e9:.0f} GFLOP/s at best"
    note = (
        f"{parameters / 1e6:.1f} M parameters, batch {batch}, {flops / 1e9:.1f} GFLOP a step; "
        f"{rates}"
    )
    return row(
        f"training step, {name}, {KIND}", ours, peer, scale=1e12, unit="ms per GFLOP", note=note
    ) | {
        "gflop": flops / 1e9,
        "batch": batch,
    }


def largest(name: str, config: WAMConfig, rounds: int) -> dict:
    """With the largest batch that the device's memory holds."""
    for batch in (256, 192, 128, 64, 32):
        try:
            return utilisation(name, config, batch, rounds)
        except torch.OutOfMemoryError:
            print(f"{name}: a batch of {batch} does not fit")
        torch.cuda.empty_cache()
    raise ValueError(f"{name} does not fit into this device's memory: leave out --large")


if __name__ == "__main__":
    p = parser()
    p.add_argument(
        "--big", action="store_true", help="only the ~0.1 B size, with four times its batch"
    )
    p.add_argument("--large", action="store_true", help="only the ~1 B size; needs 60 GB")
    o = p.parse_args()
    if o.large:
        finish("world_training_large", [largest("1792 x 26", LARGE, 2 if o.quick else 6)], o)
        sys.exit()
    rows = [] if o.big else [utilisation("nano", NANO, 4 if o.quick else 32, 3 if o.quick else 30)]
    batch = 2 if o.quick else {"cpu": 8, "cuda": 256}[DEVICE] * (4 if o.big else 1)
    rows.append(utilisation("768 x 12", BASE, batch, 2 if o.quick else 6))
    if DEVICE == "cpu" and fast_bfloat16(DEVICE) and not o.big:
        rows.append(in_bfloat16("nano", NANO, 4 if o.quick else 32, 2 if o.quick else 20))
        rows.append(in_bfloat16("768 x 12", BASE, batch, 2 if o.quick else 6))
    finish("world_training", rows, o)
