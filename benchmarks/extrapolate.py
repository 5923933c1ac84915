"""What an online iteration would take on 1, 8 and 64 GPUs:
the cost model of docs/scaling.md, extrapolated.

python -m benchmarks.extrapolate [--tflops 400] [--launch-us 10] [--gbytes 50] [--cores 12]

No GPU is used. Counted: FLOPs and operator calls of our own code (torch on the meta device, nothing
is computed), bytes of gradients, chunks, control steps. Assumed: the options, by default an H100 at
40 % of its dense bfloat16 rate, 10 us per operator call, 50 GB/s per GPU for sums of gradients, and
the CPU cores beside each GPU. A pass takes what is longer, its arithmetic or its calls.
`--quickstart` prints one iteration of `quickstart` on one rank, to hold the formula against a
measured one: two CPU cores are `--tflops 0.1 --launch-us 5 --cores 1` (`python -m benchmarks
world_training` has the rate).
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import BASE, NANO
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.check import probe
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.types import Clip

PHASES = ("simulators", "act", "score", "actor", "online")
LARGE = WAMConfig(  # ~2 B
    world=VideoDiTConfig(width=2304, depth=28, heads=24, taps=(9, 18, 28)),
    actor=ActionHeadConfig(width=1024),
)
MODELS = {  # name -> model, views, pixels
    "nano, one camera of 64 px": (NANO, 1, 64),
    "0.1 B, two cameras of 128 px": (BASE, 2, 128),
    "2 B, two cameras of 256 px": (LARGE, 2, 256),
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """One iteration, of all ranks together."""

    episodes: int = 512
    horizon: int = 300  # control steps
    epochs: int = 4
    update_batch: int = 512  # chunks
    samples: int = 40 * 256  # of online SFT
    batch: int = 256
    serve: int = 32  # observations per call of the acting model on one rank


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One rank's."""

    flops: float  # per second
    launch: float  # seconds per operator call
    link: float  # bytes per second of a sum over the ranks
    cores: int  # simulator processes
    step: float  # seconds per control step of a simulator, with its pictures


class Calls(TorchDispatchMode):
    """Counts operators."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def cost(run: Callable[[], object], batch: int) -> tuple[float, int]:
    """(FLOPs per row, operator calls) of one pass over `batch` rows."""
    with FlopCounterMode(display=False) as flops, Calls() as calls:
        run()
    return flops.get_total_flops() / batch, calls.count


def passes(
    config: WAMConfig, views: int, pixels: int
) -> tuple[dict[str, tuple[float, int]], dict[str, float]]:
    """Costs of a decision, an imagination, an update and a training sample; bytes of either half's
    gradients and of the features of a decision."""
    with torch.device("meta"):
        wam = config.build(views=views, image_hw=(pixels, pixels), action_dim=7, proprio_dim=9)
    wam.precision = contextlib.nullcontext  # autocast does not know the meta device
    clip, flow = probe(wam).to("meta"), FlowConfig()
    n, seeds = len(clip), torch.arange(len(clip))
    generators = [torch.Generator().manual_seed(i) for i in range(n)]
    plan = wam.act(clip.obs, seeds, flow, generators, "ode")
    x, step = (
        torch.zeros_like(plan.actions)[:, None],
        torch.zeros(n, 1, dtype=torch.long, device="meta"),
    )
    # one noisy step, as in the recipes
    plan = replace(plan, chain_x=x, chain_x_next=x, chain_step=step)

    def decide() -> None:
        wam.act(clip.obs, seeds, flow, generators, "ode")

    def update() -> None:
        wam.log_prob(plan, flow).sum().backward()

    found = {
        "act": cost(decide, n),
        "score": cost(lambda: wam.imagine(clip.obs, seeds, 1, plan.features), n),
        "update": cost(update, n),
        "online": cost(lambda: train(wam, clip, seeds), n),
    }
    size = {
        half: 4.0 * sum(p.numel() for p in getattr(wam, half).parameters())
        for half in ("actor", "world")
    }
    return found, size | {"features": plan.features.nbytes / n}


def train(wam: WAM, clip: Clip, seeds: torch.Tensor) -> None:
    """As `WorldUpdate.gradients`: video loss, latent KL against a frozen model, co-training."""
    with torch.no_grad():
        old = wam.features(wam.encode(clip.obs), seeds)
    context = wam.encode(clip.obs)
    features = wam.features(context, seeds)
    loss = wam.video_loss(clip, context, seeds).sum() + (features - old).square().sum()
    (loss + wam.action_loss(clip, features.detach(), seeds).sum()).backward()


def iteration(found: dict, size: dict, work: Work, m: Machine, ranks: int) -> dict[str, float]:
    """Seconds per phase, and gigabytes of features on a rank."""
    chunks = work.episodes * -(-work.horizon // 12)
    steps = work.episodes * work.horizon

    def model(kind: str, rows: float, passes: float) -> float:
        flops, calls = found[kind]
        return max(rows / ranks * flops / m.flops, passes * calls * m.launch)

    def sums(half: str, passes: float) -> float:
        return passes * 2 * (ranks - 1) / ranks * size[half] / m.link

    updates, descents = work.epochs * chunks / work.update_batch, work.samples / work.batch
    simulators = steps * m.step / (m.cores * ranks)
    return {
        "simulators": simulators,
        "act": model(
            "act", chunks, chunks / ranks / min(work.serve, max(1, work.episodes / ranks / 2))
        ),
        "score": model("score", chunks, chunks / ranks / 64),
        "actor": model("update", chunks * work.epochs, updates) + sums("actor", updates),
        "online": model("online", work.samples, descents) + sums("world", descents),
        "features": chunks / ranks * size["features"] / 1e9,
    }


def total(phases: dict[str, float]) -> float:
    """Simulators and acting overlap."""
    return (
        max(phases["simulators"], phases["act"])
        + phases["score"]
        + phases["actor"]
        + phases["online"]
    )


def line(title: str, phases: dict[str, float]) -> str:
    seconds = [*(phases[p] for p in PHASES), total(phases), phases["features"]]
    return (
        f"| {title} | "
        + " | ".join(f"{s:,.0f}" if s >= 100 else f"{s:.2g}" for s in seconds)
        + " |"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tflops", type=float, default=400, help="per GPU, reached")
    p.add_argument("--launch-us", type=float, default=10, help="per operator call")
    p.add_argument(
        "--gbytes", type=float, default=50, help="per second and GPU, for sums of gradients"
    )
    p.add_argument("--cores", type=int, default=12, help="simulator processes per GPU")
    p.add_argument(
        "--quickstart", action="store_true", help="only one iteration of quickstart, on one rank"
    )
    o = p.parse_args()
    gpu = Machine(
        flops=o.tflops * 1e12,
        launch=o.launch_us / 1e6,
        link=o.gbytes * 1e9,
        cores=o.cores,
        step=0.4e-3,
    )
    print(
        f"| model, simulator, GPUs | {' | '.join(PHASES)} | iteration | features, GB a rank |\n"
        + "|---" * 8
        + "|"
    )
    if o.quickstart:
        work = Work(episodes=256, horizon=80, samples=40 * 32, batch=32)
        print(
            line(
                "quickstart", iteration(*passes(*MODELS["nano, one camera of 64 px"]), work, gpu, 1)
            )
        )
        return
    for name, (config, views, pixels) in MODELS.items():
        found, size = passes(config, views, pixels)
        for simulator, step in (("MetaWorld, 0.4 ms a step", 0.4e-3), ("robosuite, 5 ms", 5e-3)):
            for ranks in (1, 8, 64):
                phases = iteration(found, size, Work(), replace(gpu, step=step), ranks)
                print(line(f"{name}; {simulator}; {ranks}", phases), flush=True)


if __name__ == "__main__":
    main()
