"""The optimiser step of all training here: one place that knows about ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wamrl.runtime import sharding


class RankedAdamW:
    """AdamW on the gradients of all ranks: summed, clipped, applied.

    Every rank calls `step` after its `backward`, whose loss is its share of the batch's mean.
    """

    def __init__(self, module: nn.Module, lr: float, *, grad_norm: float, **adam):
        """grad_norm: the gradients' norm is scaled down to it. adam: further options of AdamW."""
        self.module = module
        self.grad_norm = grad_norm
        self.adam = torch.optim.AdamW(module.parameters(), lr, fused=True, **adam)

    def step(self, lr: float) -> float:
        """One step at this rate; the gradients' norm before it was clipped."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        sharding.sum_gradients(self.module)
        norm = sharding.clip_gradients(self.module.parameters(), self.grad_norm)
        self.adam.step()
        return norm

    def state_dict(self) -> dict:
        """Of AdamW; sharded moments stay sharded."""
        return self.adam.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Whole moments, of which a sharded parameter takes its part."""
        sharding.load_optimizer(self.adam, state)


def require_finite(loss: Tensor, what: str, advice: str) -> None:
    """FloatingPointError before a step would spoil the weights. loss: of all ranks, any shape."""
    if not loss.isfinite().all():
        raise FloatingPointError(f"{what}: the loss is not finite; {advice}")
