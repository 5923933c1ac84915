"""The verb `plan`: what a run needs of GPUs, memory and disk, told before it is begun."""

from __future__ import annotations

from wamrl.config import Config
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.needs import Needs, Phase
from wamrl.runs.options import Options
from wamrl.runs.plan import Planner
from wamrl.runs.savings import alternatives, sharded
from wamrl.runtime.log import console

GIB = 2**30
MIB = 2**20
MORE_GPUS = (2, 4, 8, 16, 32, 64)
ROWS = ("weights", "copies", "VAE", "optimiser", "gradients", "activations", "features", "gathered")


def plan(o: Options) -> None:
    """Print what the recipe's run needs; ValueError where it cannot fit, with what would."""
    env = env_spec(o.config)
    planner = Planner(o.config, env)
    needs = planner.needs(o.gpus)
    for line in told(o.config, needs, o.tflops):
        console.print(line, markup=False)
    limit = o.gpu_memory_gib * GIB
    if needs.worst.total > limit:
        raise ValueError(refusal(o, planner, needs))
    console.print(
        f"fits: {needs.worst.total / GIB:.2f} of {o.gpu_memory_gib:g} GiB on each GPU", markup=False
    )


def told(cfg: Config, needs: Needs, tflops: float) -> list[str]:
    """All of it, as lines of text."""
    lines = ["parameters" + " " * 23 + "all         trained"]
    for part in needs.parts:
        lines.append(f"  {part.name:<24}{part.weights:>15,}{part.trained:>15,}")
    if needs.without_vae:
        lines.append(
            "  VAE: in no number here, its folder is not given (model.world.latent.folder)"
        )
    unit = GIB if needs.worst.total >= GIB else MIB
    of = "GiB" if unit == GIB else "MiB"
    lines += ["", f"memory of a GPU at its peak, {of} ({needs.gpus} GPUs, one rank each)"]
    lines.append(" " * 14 + "".join(f"{phase.name:>9}" for phase in needs.phases))
    for row in ROWS:
        if any(phase.held.get(row) for phase in needs.phases):
            cells = "".join(f"{phase.held.get(row, 0.0) / unit:>9.2f}" for phase in needs.phases)
            lines.append(f"  {row:<12}{cells}")
    cells = "".join(f"{phase.total / unit:>9.2f}" for phase in needs.phases)
    lines.append(f"  {'sum':<12}{cells}")
    lines += ["", f"main memory of a rank beside its simulators, and disk, {of}"]
    for name, size in needs.host.items():
        lines.append(f"  {name:<24}{size / unit:>15.2f}")
    for name, size in needs.disk.items():
        lines.append(f"  checkpoint: {name:<12}{size / unit:>15.2f}")
    return [*lines, "", *_arithmetic(cfg, needs, tflops)]


def _arithmetic(cfg: Config, needs: Needs, tflops: float) -> list[str]:
    counted = [phase for phase in needs.phases if phase.flops]
    lines = [f"arithmetic of all GPUs, TFLOP ({needs.decisions:,} decisions an iteration)"]
    for phase in counted:
        of = f"{cfg.sft.steps} steps" if phase.name == "sft" else "an iteration"
        lines.append(
            f"  {phase.name:<12}{phase.flops / 1e12:>15,.2f}  {of}{_time(phase, needs, tflops)}"
        )
    if tflops:
        lines.append(
            f"  estimate: TFLOP / ({needs.gpus} GPUs x {tflops:g} TFLOP/s reached); without "
            "simulators, communication and launches of small operators"
        )
    else:
        lines.append("  --tflops X (what a GPU reaches, not its data sheet) makes seconds of it")
    return lines


def _time(phase: Phase, needs: Needs, tflops: float) -> str:
    if not tflops:
        return ""
    return f", {phase.flops / 1e12 / (needs.gpus * tflops):,.1f} s"


def refusal(o: Options, planner: Planner, needs: Needs) -> str:
    """One sentence: what does not fit, and what does, as far as it was found."""
    limit = o.gpu_memory_gib * GIB
    worst = needs.worst
    largest = max(worst.held, key=worst.held.get)
    sentence = (
        f"{o.config.name} cannot fit: its phase {worst.name} needs {worst.total / GIB:.1f} GiB on "
        f"each of {needs.gpus} GPUs of {o.gpu_memory_gib:g} GiB, {largest} most of it"
    )
    found = _fitting(planner, o, limit) + _with_more(planner, o, limit)
    if not found:
        return f"{sentence}; nothing was found that fits: take a smaller model or larger GPUs"
    return f"{sentence}; it fits with {', or '.join(found)}"


def _fitting(planner: Planner, o: Options, limit: float) -> list[str]:
    """Options that make it fit on as many GPUs; all of them together only if none does alone."""
    found = []
    options = alternatives(o.config)
    for number, (option, cfg) in enumerate(options.items(), 1):
        if found and number == len(options) > 1:  # all of them together
            break
        if planner.like(cfg).fits(o.gpus, limit):
            found.append(option)
    return found


def _with_more(planner: Planner, o: Options, limit: float) -> list[str]:
    """The fewest GPUs over which its weights, sharded, fit."""
    more = planner.like(sharded(o.config))
    for gpus in MORE_GPUS:
        if gpus <= o.gpus or gpus > o.config.train.groups:
            continue
        if more.fits(gpus, limit):
            return [f"{gpus} GPUs and --sft.shard True --train.world.shard True"]
    return []
