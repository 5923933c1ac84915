"""Ranks: the same program in several processes (`torchrun`),
each with its own simulators and its share of the work.

Without torchrun there is one rank and every function here is the identity. Order is always that of
the ranks, so that what is gathered from contiguous shares is what one rank alone would have had. No
pickle: only tensors travel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as td
from torch import Tensor, nn

_PATIENCE = timedelta(hours=1)  # ranks wait for the one with the longest rollout
_BUCKET = 1 << 25  # elements of gradients that travel together
_ENDED = (
    "another rank has ended or the job was stopped: look for the first message above; go on with "
    "--resume"
)
RENDEZVOUS = "WAMRL_RENDEZVOUS"  # where ranks meet that torchrun has not started (launch.py)


class Ended(RuntimeError):
    """Another rank has ended, or told us to."""


def world() -> int:
    """Number of ranks."""
    return td.get_world_size() if td.is_initialized() else 1


def rank() -> int:
    """Which of the ranks this process is: 0 to `world()` - 1."""
    return td.get_rank() if td.is_initialized() else 0


def is_main() -> bool:
    """Is this the rank that writes and prints?"""
    return rank() == 0


def alone() -> bool:
    """No process group: every function here is the identity."""
    return not td.is_initialized()


@contextlib.contextmanager
def ranks(even_one: bool = False) -> Iterator[None]:
    """Join the other ranks if `torchrun` has started us, and leave them at the end.

    even_one: also where it has started one rank only, whose collectives then run
    (`benchmarks/one_rank.py`). `Ended` with one sentence if another rank ends first, which is
    noticed while waiting for it or told by SIGTERM.
    """
    if int(os.environ.get("WORLD_SIZE", 0)) < (1 if even_one else 2) or td.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    place = {name: int(os.environ[name.upper()]) for name in ("rank", "world_size")}
    td.init_process_group(backend, os.environ.get(RENDEZVOUS, "env://"), timeout=_PATIENCE, **place)
    before = signal.signal(signal.SIGTERM, _stopped)
    try:
        td.barrier()  # nobody leaves with an error while others still connect
        yield
    except RuntimeError as error:
        # gloo's own errors have no class
        if isinstance(error, td.DistError) or "gloo" in str(error).lower():
            raise Ended(_ENDED) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        td.destroy_process_group()


def _stopped(*_: object) -> None:
    raise Ended(_ENDED)


def rank_slice(n: int) -> slice:
    """This rank's contiguous part of n things; the parts differ by at most one."""
    r = rank()
    w = world()
    return slice(n * r // w, n * (r + 1) // w)


def all_sum(x: Tensor) -> Tensor:
    """Sum over the ranks."""
    if alone():
        return x
    x = x.clone()
    td.all_reduce(x)
    return x


def all_max(x: float) -> float:
    """Maximum over the ranks; NaN if one has it."""
    return all_gather(torch.tensor([x], dtype=torch.float64)).max().item()


def all_gather(x: Tensor) -> Tensor:
    """(n_r, ...) of every rank r, concatenated: (sum n_r, ...)."""
    if alone():
        return x
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world())]
    td.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    counts = [int(n) for n in sizes]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    td.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


def offset_and_count(n: int) -> tuple[int, int]:
    """Of n things here and others elsewhere:
    how many lie before ours, and how many there are in all.
    """
    counts = all_gather(torch.tensor([n]))
    return int(counts[: rank()].sum()), int(counts.sum())


def barrier() -> None:
    """Wait for all ranks."""
    if not alone():
        td.barrier()


def gather_texts(words: Iterable[str]) -> list[str]:
    """Every rank's words, in order."""
    words = list(words)
    data = torch.tensor(list("\0".join(words).encode()), dtype=torch.uint8)
    sizes = all_gather(torch.tensor([[len(words), len(data)]]))
    joined = bytes(all_gather(data).tolist())
    out = []
    for count, size in sizes.tolist():
        out += joined[:size].decode().split("\0") if count else []
        joined = joined[size:]
    return out


def broadcast_text(text: str) -> str:
    """The text of the first rank."""
    return gather_texts([text])[0]


def broadcast_texts(texts: list[str]) -> list[str]:
    """The texts of the first rank, however many."""
    return json.loads(broadcast_text(json.dumps(texts)))


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Add up their gradients over all ranks; where a rank has none, it counts as zero."""
    parameters = [] if alone() else list(parameters)
    while parameters:
        bucket = []
        size = 0
        while parameters and (not bucket or size + parameters[0].numel() <= _BUCKET):
            bucket.append(parameters.pop(0))
            size += bucket[-1].numel()
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
        )
        td.all_reduce(flat)
        for p, grad in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = grad.view_as(p).clone()
