"""What a run needs, as numbers; `runs.plan` finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from wamrl.config import Config
from wamrl.envs.base import EnvSpec
from wamrl.models.wam import WAM


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the model is made of."""

    name: str
    weights: int  # how many
    trained: int  # of these


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What is in a GPU's memory at the peak of a phase of the run, bytes."""

    name: str
    held: dict[str, float]
    flops: float  # of the whole phase, all GPUs: all of `sft`, else one iteration's

    @property
    def total(self) -> float:
        """Bytes on one GPU."""
        return sum(self.held.values())


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of a run on `gpus` GPUs, one rank each."""

    gpus: int
    parts: tuple[Part, ...]
    phases: tuple[Phase, ...]
    host: dict[str, float]  # bytes of main memory a rank
    disk: dict[str, float]  # bytes of each kind of checkpoint
    decisions: int  # of an iteration, all ranks together, if every episode lasts to the horizon
    without_vae: bool  # the model has one whose folder was not given: it is in no number

    @property
    def worst(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)


def part_of(name: str, module: nn.Module) -> Part:
    weights = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Part(name=name, weights=weights, trained=trained)


def parts_of(wam: WAM, vae: nn.Module | None, critic: nn.Module | None) -> Iterator[Part]:
    """Those with weights: the world model by its own parts, VAE, actor, value head."""
    world = wam.world
    found = [part_of(f"world: {name}", child) for name, child in world.named_children()]
    own = list(world.parameters(recurse=False))
    trained = sum(p.numel() for p in own if p.requires_grad)
    found.append(Part(name="world: its own", weights=sum(map(Tensor.numel, own)), trained=trained))
    beside = {"VAE": vae, "actor": wam.actor, "value head": critic}
    found += [part_of(name, module) for name, module in beside.items() if module is not None]
    return (part for part in found if part.weights)


def bytes_of(module: nn.Module, seen: set[int]) -> float:
    """Of weights and buffers that are not in `seen`, where they are put."""
    total = 0
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            total += tensor.nbytes
    return float(total)


def trained_bytes(module: nn.Module) -> float:
    """Bytes of the weights that learn."""
    return float(sum(p.nbytes for p in module.parameters() if p.requires_grad))


def host_bytes(cfg: Config, env: EnvSpec, decisions: int, gpus: int) -> dict[str, float]:
    """Main memory of one of `gpus` ranks, beside its simulators: frames of a rollout of `decisions`
    in all, and of clips.
    """
    model = cfg.model
    pixels = len(env.views) * env.image_hw[0] * env.image_hw[1] * 3
    past = len(model.history_offsets) * (1 + model.world.past)
    future = len(model.frame_offsets)
    compared = 4 * (2 * future + 1)  # imagined, executed, last: float32
    rows = -(-decisions // gpus)
    clips = -(-cfg.train.world.capacity // gpus)
    return {
        "rollout": rows * pixels * (past + future + compared),
        "clips": clips * pixels * (past + future),
    }
