"""World models that do not fit beside their gradients and optimiser:
FSDP2 (`fully_shard`), each rank holds a part.

Only the world model is sharded; the actor is small and stays whole. Where ranks call the model a
different number of times (rollouts, scoring, evaluation), its weights are gathered before
(`unsharded`), so that only the training steps communicate, and there all ranks make the same number
of passes (`microbatches`). Without process group nothing happens.

FSDP2 takes as long to import as torch itself, so only `shard` imports it. Before that, nothing can
be sharded: `is_sharded` and `_parts` look it up among the modules that are loaded.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from wamrl.runtime import dist

# what is called of a world model, instead of `forward`; none of these may call another
METHODS = ("recall", "encode", "features", "imagine", "loss")


def shard(*worlds: nn.Module) -> None:
    """Split the weights of world models over the ranks, in place: each of their `blocks_of`, then
    the rest.
    """
    for world in () if dist.alone() else worlds:
        if not _parts(world):
            _shard(world)


def blocks_of(world: nn.Module) -> list[nn.Module]:
    """What is gathered and released at once: the entries of every ModuleList that is in no other.

    Lists within a block, of single layers, would cost a message each.
    """
    lists = [m for m in world.modules() if isinstance(m, nn.ModuleList)]
    inner = {id(m) for outer in lists for m in outer.modules() if m is not outer}
    return [block for blocks in lists if id(blocks) not in inner for block in blocks]


def _shard(world: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # nothing is in place
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in blocks_of(world):
        fully_shard(block)
    fully_shard(world)
    for name in METHODS:
        if hasattr(world, name):  # not every model remembers
            register_fsdp_forward_method(world, name)


def _parts(module: nn.Module) -> list[nn.Module]:
    """The modules within `module`, itself included, whose own weights are sharded."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return [m for m in module.modules() if isinstance(m, fsdp.FSDPModule)] if fsdp else []


def is_sharded(x: object) -> bool:
    """Is this a tensor (DTensor) of which each rank holds a part?"""
    tensor = sys.modules.get("torch.distributed.tensor")
    return tensor is not None and isinstance(x, tensor.DTensor)


def unshard(*modules: nn.Module) -> Callable[[], None]:
    """Give every rank all weights of the sharded modules,
    to call them freely without gradients; until it is called.
    """
    parts = [part for module in modules for part in _parts(module)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()

    def release() -> None:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()

    return release


@contextlib.contextmanager
def unsharded(*modules: nn.Module) -> Iterator[None]:
    """`unshard` for a block."""
    release = unshard(*modules)
    try:
        yield
    finally:
        release()


def microbatches(n: int, size: int) -> tuple[Tensor, ...]:
    """Rows 0..n-1 in pieces of at most `size` (0: one piece),
    on all ranks equally many, some maybe empty.
    """
    most = int(dist.all_max(n))
    return torch.arange(n).tensor_split(-(-most // size) if size and most else 1)


def sum_gradients(module: nn.Module) -> None:
    """Add up the gradients of all ranks; where a rank has none, it counts as zero."""
    if dist.alone():
        return
    whole = []
    for p in (p for p in module.parameters() if p.requires_grad):
        if is_sharded(p):  # FSDP has averaged them
            if p.grad is not None:
                p.grad.to_local().mul_(dist.world())
        else:
            whole.append(p)
    dist.sum_gradients(whole)


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale the gradients so that their norm over everything
    is at most `limit`; the norm before.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = _norm(gradients)
    torch._foreach_mul_([local(g) for g in gradients], (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm.item()


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """L2 norm of the gradients over everything; sharded ones are those of all ranks together."""
    return _norm([p.grad for p in parameters if p.grad is not None]).item()


def _norm(gradients: list[Tensor]) -> Tensor:
    parts = [local(g) for g in gradients if is_sharded(g)]
    whole = [g for g in gradients if not is_sharded(g)]
    square = get_total_norm(whole).square().to(gradients[0].device)
    if parts:
        square = square + dist.all_sum(get_total_norm(parts).square())
    return square.sqrt()


def local(x: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, else the tensor."""
    return x.to_local() if is_sharded(x) else x


def finite(parameters: Iterable[Tensor]) -> bool:
    """Is every number of every rank finite?"""
    bad = sum((~local(p.detach()).isfinite()).sum() for p in parameters)
    return dist.all_max(float(bad)) == 0


def whole(state):
    """A nested state with every sharded tensor gathered; all ranks call it together."""
    if is_sharded(state):
        return state.full_tensor()
    if isinstance(state, dict):
        return {k: whole(v) for k, v in state.items()}
    return type(state)(whole(v) for v in state) if isinstance(state, list | tuple) else state


def load(module: nn.Module, state: dict) -> None:
    """`module.load_state_dict` of a whole state, of which a sharded module takes its part."""
    mine = module.state_dict()
    module.load_state_dict({k: like(v, mine.get(k)) for k, v in state.items()})


def like(value, reference):
    """`value`, of which a sharded `reference` takes its part."""
    if not is_sharded(reference) or not isinstance(value, Tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    on = value.to(reference.device)
    return distribute_tensor(on, reference.device_mesh, reference.placements, src_data_rank=None)


def join(parts: list[Tensor]) -> Tensor:
    """The whole of a tensor from every rank's part (FSDP2 splits the first dimension)."""
    return torch.cat([p for p in parts if p.numel()] or parts[:1])
