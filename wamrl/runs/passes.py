"""The passes of a run, gone through on shapes: what each holds at its peak, and its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wamrl.models.check import probe
from wamrl.models.wam import WAM
from wamrl.runtime.shapes import Used, measure, on_fake_device, shapes_only
from wamrl.types import Clip


class Passes:
    """Of a model on the meta device; each is measured once."""

    def __init__(self, wam: WAM, *others: nn.Module) -> None:
        """others: what passes read beside the model; some of their weights may be the same."""
        self.wam = wam
        self.modules = (wam, *others)
        self._ready = False
        self._measured: dict[tuple, Used] = {}

    def flops(self, name: str) -> float:
        """Of a row of the pass of this name, which was measured before."""
        key = next(key for key in self._measured if key[0] == name)
        return self._measured[key].flops / key[1]

    def used(
        self,
        name: str,
        run: Callable[[Clip, Any], object],
        rows: int,
        again: bool = False,
        drop: bool = False,
        first: Callable[[Clip, Tensor], Any] = lambda clip, seeds: seeds,
    ) -> Used:
        """Of a pass over `rows` rows of a clip. again: as the second of several, with the gradients
        of the first; drop: gradients go as soon as they come; first: what the pass is given beside
        the clip, made before.
        """
        key = (name, rows, again, drop)
        if key not in self._measured:
            with shapes_only():
                self._prepare()
                hooks = _dropping(self.wam) if drop else []
                clip = self.clip(rows)
                given = first(clip, torch.arange(3 * rows).view(3, rows))

                def once() -> None:
                    if again and not drop:
                        _with_gradients(self.wam)
                    run(clip, given)

                self._measured[key] = measure(once, self._known(clip, given))
            for hook in hooks:
                hook.remove()
            self.wam.zero_grad()
        return self._measured[key]

    def clip(self, rows: int) -> Clip:
        """Of the model's shapes; call it where tensors have shapes only."""
        self._prepare()
        return probe(self.wam)[torch.zeros(rows, dtype=torch.long)]

    def _prepare(self) -> None:
        if not self._ready:
            on_fake_device(*self.modules)
            self._ready = True

    def _known(self, clip: Clip, given: Any) -> list[Tensor]:
        past = {} if clip.past is None else vars(clip.past)
        leaves = tree_leaves([vars(clip), past, vars(given) if is_dataclass(given) else given])
        known = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        for module in self.modules:
            known += [*module.parameters(), *module.buffers()]
        return known


def _with_gradients(module: nn.Module) -> None:
    for weight in module.parameters():
        if weight.requires_grad:
            weight.grad = torch.empty_like(weight)


def _dropping(module: nn.Module) -> list[Any]:
    def drop(weight: Tensor) -> None:
        weight.grad = None

    learning = [p for p in module.parameters() if p.requires_grad]
    return [p.register_post_accumulate_grad_hook(drop) for p in learning]
