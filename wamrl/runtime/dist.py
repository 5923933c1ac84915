"""Ranks: the same program in several processes (`torchrun`),
each with its own simulators and its share of the work.

Without torchrun there is one rank and every function here is the identity. Order is always that of
the ranks, so that what is gathered from contiguous shares is what one rank alone would have had. No
pickle: only tensors travel. Who waits for another rank hears signals, and names one that hangs
(`heartbeat.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from datetime import timedelta

import torch
import torch.distributed as td
from torch import Tensor, nn

from wamrl.runtime import heartbeat

# As long as a rank makes progress the others wait for it. NCCL, and FSDP's own collectives, do not
# ask: they end by this.
_PATIENCE = timedelta(hours=1)
_PATIENCE_ON_CPU = timedelta(days=1)
_LOOK = timedelta(seconds=1)  # between looks at who keeps us waiting
_BUCKET = 1 << 25  # elements of gradients that travel together
_ENDED = (
    "another rank has ended or the job was stopped: look for the first message above; go on with "
    "--resume"
)
_underway: td.Work | None = None  # a collective that we wait for
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


def place_from_environment() -> dict[str, int]:
    """`rank` and `world_size` as torchrun has set them; world_size 0 where nobody has.

    ValueError of one sentence where only a part is there, as scripts of a cluster may leave it.
    """
    size = os.environ.get("WORLD_SIZE", "0")
    if size in ("0", "1"):
        return {"rank": 0, "world_size": int(size)}
    names = ["RANK", "LOCAL_RANK"]
    if RENDEZVOUS not in os.environ:
        names += ["MASTER_ADDR", "MASTER_PORT"]
    missing = [name for name in names if not os.environ.get(name)]
    rank = os.environ.get("RANK", "")
    if missing or not (size.isdecimal() and rank.isdecimal() and int(rank) < int(size)):
        what = f"no {', '.join(missing)}" if missing else f"RANK={rank}"
        raise ValueError(
            f"the environment has WORLD_SIZE={size} and {what}: start the ranks with torchrun, or "
            "unset WORLD_SIZE for a single process"
        )
    return {"rank": int(rank), "world_size": int(size)}


@contextlib.contextmanager
def ranks(even_one: bool = False) -> Iterator[None]:
    """Join the other ranks if `torchrun` has started us, and leave them at the end.

    even_one: also where it has started one rank only, whose collectives then run
    (`benchmarks/one_rank.py`). `Ended` with one sentence if another rank ends first, which is
    noticed while waiting for it or told by SIGTERM.
    """
    place = place_from_environment()
    if place["world_size"] < (1 if even_one else 2) or td.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    gpus = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    patience = _PATIENCE if gpus else _PATIENCE_ON_CPU
    where = os.environ.get(RENDEZVOUS, "env://")
    others = _sockets()
    store, _, _ = next(td.rendezvous(where, timeout=_PATIENCE, **place))
    td.init_process_group(backend, store=store, timeout=patience, **place)
    # torchrun tells the others so when one has failed; ranks of launch.py are told by their first
    by_torchrun = RENDEZVOUS not in os.environ
    before = signal.signal(
        signal.SIGTERM, _stopped if by_torchrun else signal.getsignal(signal.SIGTERM)
    )
    heartbeat.begin(store, **place)
    try:
        barrier()  # nobody leaves with an error while others still connect
        yield
    except heartbeat.Hung as error:
        raise Ended(str(error)) from error
    except RuntimeError as error:
        # gloo's own errors have no class
        if isinstance(error, td.DistError) or "gloo" in str(error).lower():
            raise Ended(_ENDED) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        heartbeat.end()
        if _underway is not None and not _underway.is_completed():
            _hang_up(_sockets() - others)
        td.destroy_process_group()


def _stopped(*_: object) -> None:
    raise Ended(_ENDED)


def _finish(work: td.Work, x: Tensor) -> None:
    """Wait for a collective on `x`, on CPUs so that signals are heard and who hangs is named."""
    if x.is_cuda:
        work.wait()
        return
    global _underway
    _underway = work
    heartbeat.arrived()
    while True:
        try:
            work.wait(_LOOK)
            break
        except RuntimeError:
            if work.is_completed():
                raise
            heartbeat.look()
    _underway = None
    heartbeat.tick()


def _sockets() -> set[int]:
    """Descriptors of ours that are sockets."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:  # the one by which we look
            continue
    return found


def _hang_up(descriptors: set[int]) -> None:
    """Close the connections to other ranks. A collective that we leave while it waits for one of
    them would keep this process from its end until the other has come.
    """
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


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
    _finish(td.all_reduce(x, async_op=True), x)
    return x


def all_max(x: float) -> float:
    """Maximum over the ranks; NaN if one has it."""
    return all_gather(torch.tensor([x], dtype=torch.float64)).max().item()


def all_gather(x: Tensor) -> Tensor:
    """(n_r, ...) of every rank r, concatenated: (sum n_r, ...)."""
    if alone():
        return x
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world())]
    size = torch.tensor([len(x)], device=x.device)
    _finish(td.all_gather(sizes, size, async_op=True), size)
    counts = [int(n) for n in sizes]
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in counts]
    _finish(td.all_gather(parts, padded, async_op=True), padded)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


def offset_and_count(n: int) -> tuple[int, int]:
    """Of n things here and others elsewhere:
    how many lie before ours, and how many there are in all.
    """
    counts = all_gather(torch.tensor([n]))
    return int(counts[: rank()].sum()), int(counts.sum())


def barrier() -> None:
    """Wait for all ranks."""
    all_sum(torch.zeros(1))


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
        _finish(td.all_reduce(flat, async_op=True), flat)
        for p, grad in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = grad.view_as(p).clone()
