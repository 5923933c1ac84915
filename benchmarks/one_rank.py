"""Does training through the collectives of one rank change anything, and what do they cost?

    torchrun --standalone --nproc-per-node 1 -m benchmarks.one_rank

On a GPU they are NCCL's, elsewhere gloo's. Ours: a step of SFT with a process group of one rank,
also with the world model sharded (FSDP2). Peer: the same step without a group. All start from the
same weights and see the same clips. And one iteration of the online loop on the point mass, in
which tensors of the CPU travel, too.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
import torch.distributed as td

from benchmarks.models import BASE, NANO, build, clips
from benchmarks.profile_iteration import demonstrations
from benchmarks.side_by_side import finish, options, row, single
from wamrl.models.wam_config import WAMConfig
from wamrl.online.state import TrainingState
from wamrl.recipes.find import find_recipe, smoke
from wamrl.runs.phases import fresh_model
from wamrl.runtime import dist, sharding
from wamrl.sft import SFT, SFTConfig
from wamrl.train import iterate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Found = tuple[
    list[float], list[float], dict[str, torch.Tensor]
]  # seconds and video loss of every step, weights


def train(model: WAMConfig, batch: int, steps: int, shard: bool) -> Found:
    """The first step is not timed."""
    wam = build(model, DEVICE)
    clip = clips(wam, batch)
    cfg = SFTConfig(steps=steps + 1, batch=batch, warmup=1, lr=1e-4, shard=shard)
    state = SFT(wam, cfg, seed=0)
    seconds = []
    losses = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        found = state.step(
            lambda n, generator, own: clip[own]
        )  # its losses are numbers: the device has finished
        seconds.append(time.perf_counter() - begin)
        losses.append(found["sft/video_loss"])
    return seconds[1:], losses, sharding.whole(wam.state_dict())


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(
        (x.float() - b[name].float()).abs().max().item() for name, x in a.items() if x.numel()
    )


def against(name: str, ours: Found, peer: Found) -> list[dict]:
    worst = max(abs(a / b - 1) for a, b in zip(ours[1], peer[1], strict=True))
    assert worst < 1e-3, f"{name}: the losses differ by {worst:.1e}"
    note = f"losses differ by {worst:.1e} at most, weights by {furthest(ours[2], peer[2]):.1e}"
    return [row(f"SFT step, {name}", ours[0], peer[0], note=note)]


def sums(model: WAMConfig, rounds: int) -> dict:
    """Adding up the gradients of all parameters of the world model over the ranks."""
    parameters = list(build(model, DEVICE).world.parameters())
    for p in parameters:
        p.grad = torch.ones_like(p)
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        dist.sum_gradients(parameters)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    assert all(bool((p.grad == 1).all()) for p in parameters)
    size = sum(p.numel() for p in parameters) * 4 / 1e6
    return single("sum of gradients", [1e3 * s for s in seconds[1:]], "ms", f"{size:.0f} MB")


def online() -> dict[str, float]:
    """Metrics of an iteration of the whole method."""
    cfg = smoke(find_recipe("point")())
    learner = replace(cfg.train.learner, value_warmup=0)
    cfg = replace(
        cfg,
        train=replace(cfg.train, learner=learner, world=replace(cfg.train.world, demo_share=1.0)),
    )
    torch.manual_seed(0)
    with cfg.build_pool() as pool:
        state = TrainingState(
            cfg, fresh_model(cfg).to(DEVICE), demonstrations(cfg), pool.spec.horizon
        )
        return iterate(state, pool)[0]


def main() -> None:
    o = options()
    large = DEVICE == "cuda" and not o.quick
    model = BASE if large else NANO
    batch = 64 if large else 4
    steps = 20 if large else 3
    alone = train(model, batch, steps, shard=False)
    iteration = online()
    with dist.ranks(even_one=True):
        assert not dist.alone(), (
            "start it by torchrun --standalone --nproc-per-node 1 -m benchmarks.one_rank"
        )
        kind = "NCCL" if DEVICE == "cuda" else td.get_backend()
        rows = against(f"one rank, {kind}", train(model, batch, steps, shard=False), alone)
        rows += against(f"one rank, {kind}, sharded", train(model, batch, steps, shard=True), alone)
        rows.append(sums(model, steps))
        joined = online()
    names = ("actor/loss", "actor/value_loss", "rollout/success", "rollout/steps")
    apart = {name: abs(joined[name] - iteration[name]) for name in names}
    assert max(apart.values()) < 1e-2, f"the online iteration differs: {apart}"
    rows.append(
        single(
            "online iteration, largest difference of its metrics",
            [max(apart.values())],
            "",
            str(apart),
        )
    )
    finish("one_rank", rows, o)


if __name__ == "__main__":
    main()
