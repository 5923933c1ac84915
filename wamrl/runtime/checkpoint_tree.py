"""Nested state as JSON and a flat dict of tensors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wamrl.runtime import sharding

_PLAIN = (type(None), bool, int, str)  # what JSON keeps as it is


def encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for `value`: plain scalars as they are, all else as {tag:
    content}; tensors are put into `tensors`.
    """
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return {"float": value.hex()}  # bitwise, NaN and infinity included
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        if bad := [k for k in value if type(k) not in (*_PLAIN, float)]:
            raise ValueError(f"cannot save {where}: its key {bad[0]!r} is not a string or a number")
        return {
            "dict": [
                [encode(k, where, tensors), encode(v, f"{where}.{k}", tensors)]
                for k, v in value.items()
            ]
        }
    if type(value) in (list, tuple):
        return {
            type(value).__name__: [encode(v, f"{where}.{i}", tensors) for i, v in enumerate(value)]
        }
    if sharding.is_sharded(value):
        return {"shards": where}  # see `shards`
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _encode_array(value, where, tensors)
    raise ValueError(
        f"cannot save {where}: {type(value).__name__} is not a kind of value that a checkpoint "
        "keeps"
    )


def shards(value: Any, where: str) -> dict[str, Tensor]:
    """This rank's part of every sharded tensor, by the place that `encode` names."""
    if sharding.is_sharded(value):
        return {where: sharding.local(value.detach()).cpu()}
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return {name: part for k, v in items for name, part in shards(v, f"{where}.{k}").items()}


def _encode_array(
    value: Tensor | np.ndarray | np.generic, where: str, tensors: dict[str, Tensor]
) -> dict:
    # {"a.b": x, "a": {"b": y}} is possible
    name = where if where not in tensors else f"{where}#{len(tensors)}"
    try:
        tensors[name] = (
            value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot save {where}: {error}") from error
    tag = (
        "tensor"
        if isinstance(value, Tensor)
        else "array"
        if isinstance(value, np.ndarray)
        else "scalar"
    )
    return {tag: name}


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors demands;
    tied weights are written twice.
    """
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        whole = (
            tensor.is_contiguous()
            and storage.nbytes() == tensor.nbytes
            and storage.data_ptr() not in seen
        )
        seen.add(storage.data_ptr())
        out[name] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
    return out


def decode(node: Any, tensors: dict[str, Tensor], parts: list[dict[str, Tensor]]) -> Any:
    """The inverse of `encode`, given the `shards` of all ranks; KeyError, TypeError, ValueError or
    AttributeError on anything else."""
    if type(node) in _PLAIN:
        return node
    ((tag, content),) = node.items()
    match tag:
        case "dict":
            return {decode(k, tensors, parts): decode(v, tensors, parts) for k, v in content}
        case "list":
            return [decode(v, tensors, parts) for v in content]
        case "tuple":
            return tuple(decode(v, tensors, parts) for v in content)
        case "float":
            return float.fromhex(content)
        case "bytes":
            return bytes.fromhex(content)
        case "tensor":
            return tensors[content]
        case "shards":
            return sharding.join([part[content] for part in parts])
        case "array":
            return tensors[content].numpy()
        case "scalar":
            return tensors[content].numpy()[()]
    raise ValueError(f"unknown tag {tag!r}")
