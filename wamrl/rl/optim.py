"""The optimiser step of all training here: one place that knows about ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wamrl.runtime import sharding


class RankedAdamW:
    """AdamW on the gradients of all ranks: summed, clipped, applied.

    Every rank calls `step` after its `backward`, whose loss is its share of the batch's mean.
    """

    def __init__(self, *modules: nn.Module, lr: float, grad_norm: float, option: str, **adam):
        """modules: what is trained; one that is sharded must not share a module with one that is
        not, since AdamW takes each module's parameters at once. grad_norm: the norm of all
        gradients is scaled down to it. option: which sets the rate, for the sentence about a
        gradient that is not finite. adam: further options of AdamW.
        """
        self.modules = modules
        self.parameters = [p for module in modules for p in module.parameters()]
        self.grad_norm = grad_norm
        self.option = option
        groups = [{"params": list(module.parameters())} for module in modules]
        self.adam = torch.optim.AdamW(groups, lr, fused=True, **adam)

    def backward(self, loss: Tensor) -> None:
        """The gradients of what is trained here, afresh; other weights keep theirs, though the loss
        may depend on them too.
        """
        self.adam.zero_grad()
        loss.backward(inputs=[p for p in self.parameters if p.requires_grad])

    def step(self, lr: float) -> float:
        """One step at this rate; the gradients' norm before it was clipped. FloatingPointError
        where that is not finite, with the weights as they were.
        """
        for group in self.adam.param_groups:
            group["lr"] = lr
        for module in self.modules:
            sharding.sum_gradients(module)
        norm = sharding.clip_gradients(self.parameters, self.grad_norm)
        if not math.isfinite(norm):
            raise FloatingPointError(f"{self.option}: the gradient is not finite; lower it")
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
