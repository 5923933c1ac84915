"""What a computation would hold and cost, found from shapes: nothing is computed, no memory taken.

    with shapes_only():
        on_fake_device(model)
        used = measure(lambda: model(x).sum().backward(), known=model.parameters())

Tensors are torch's fake ones on a CPU, so that autocast and the memory-saving attention are what
they are in a real run; `measure` counts real tensors just as well.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


@dataclass(frozen=True, kw_only=True)
class Used:
    """Of one computation."""

    peak: int  # most bytes at once, of tensors that were made in it
    flops: int  # of matrix products, convolutions and attention: a multiplication and an addition


def measure(run: Callable[[], object], known: Iterable[Tensor]) -> Used:
    """What `run` takes beside the tensors that are there already, of which some are written to."""
    with Held(known) as held:
        run()
    return Used(peak=held.peak, flops=held.flops)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args, **kwargs) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *args, **kwargs
) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


_ATEN = torch.ops.aten
_DEVICE = torch.ops.prim.device.default
_FORMULAS = {
    **flop_registry,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Held(TorchDispatchMode):
    """Bytes of the tensors that live, from the operator that made them to their end; and FLOPs.

    Not by torch's FlopCounterMode: its hooks on modules keep alive what `recompute` lets go.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.flops = 0
        self._seen = weakref.WeakKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        if function is _DEVICE:  # two of three calls, and nothing is made
            return _device(*args)
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        formula = _FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def _device(tensor: Tensor) -> torch.device:
    return getattr(tensor, "fake_device", None) or _DEVICE(tensor)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """A block in which tensors have shapes and no values: what one would be asked for is 0."""
    with warnings.catch_warnings():
        # a CPU has no kernel for it, a GPU has
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        with _fake_mode(), _WithoutValues():
            yield


@functools.cache
def _fake_mode() -> Any:
    """One for all blocks: what an operator gives is found once for tensors of the same mode."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

    return FakeTensorMode(allow_non_fake_inputs=True)


def on_fake_device(*modules: nn.Module) -> None:
    """Move modules from the meta device to where `shapes_only` computes; what they share, they
    share afterwards. Call it within that block.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}  # with the original, whose id is then its own
    for module in (m for root in modules for m in root.modules()):
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = (tensor, _fake(tensor))
                table[name] = made[id(tensor)][1]


def _fake(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty.detach(), requires_grad=tensor.requires_grad)
    return empty


_ANSWERS = {
    Tensor.item: 0,
    Tensor.__float__: 0.0,
    Tensor.__int__: 0,
    Tensor.__index__: 0,
    Tensor.__bool__: True,
}


class _WithoutValues(TorchFunctionMode):
    """Answers what shapes cannot: numbers, which rows, draws from a generator of their own."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.tolist:
            return _zeros(args[0].shape)
        if function in _ANSWERS:
            return _ANSWERS[function]
        # which are chosen nobody knows: all, which is the most
        if function is Tensor.nonzero:
            (of,) = args
            return torch.zeros(of.numel(), of.dim(), dtype=torch.long, device=of.device)
        if function is Tensor.__getitem__ and _is_mask(args[1]):
            return args[0].flatten(0, args[1].dim() - 1).clone()
        kwargs.pop("generator", None)
        return function(*args, **kwargs)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _zeros(shape: torch.Size) -> Any:
    """Nested lists of 0, as `Tensor.tolist` would give them."""
    if not shape:
        return 0
    return [_zeros(shape[1:]) for _ in range(shape[0])]
