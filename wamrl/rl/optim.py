"""The optimiser step of all training here: one place that knows about ranks.

The arithmetic is the library's, by its functional form. The class around it, `torch.optim.AdamW`,
imports the compiler when it is first made, which more than doubles the time until a process takes
its first step: `python -m benchmarks start`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from wamrl.runtime import sharding


class RankedAdamW:
    """AdamW on the gradients of all ranks: summed, clipped, applied.

    Every rank calls `step` after its `backward`, whose loss is its share of the batch's mean.

    Attributes:
        parameters: of all modules, in order.
        moments: of each parameter that has had a gradient: `exp_avg` and `exp_avg_sq` of its shape,
            and `step`, how often it was moved.
        rate: the learning rate of the last step.
    """

    def __init__(
        self,
        *modules: nn.Module,
        grad_norm: float,
        option: str,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        """modules: what is trained; one that is sharded must not share a module with one that is
        not, since AdamW takes each module's parameters at once. grad_norm: the norm of all
        gradients is scaled down to it. option: which sets the rate, for the sentence about a
        gradient that is not finite. Others: as of `torch.optim.AdamW`.
        """
        self.modules = modules
        self.parameters = [p for module in modules for p in module.parameters()]
        self.moments: dict[Tensor, dict[str, Tensor]] = {}
        self.rate = 0.0
        self.grad_norm = grad_norm
        self.option = option
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay

    def backward(self, loss: Tensor) -> None:
        """The gradients of what is trained here, afresh; other weights keep theirs, though the loss
        may depend on them too.
        """
        for p in self.parameters:
            p.grad = None
        loss.backward(inputs=[p for p in self.parameters if p.requires_grad])

    def step(self, lr: float) -> float:
        """One step at this rate; the gradients' norm before it was clipped. FloatingPointError
        where that is not finite, with the weights as they were.
        """
        for module in self.modules:
            sharding.sum_gradients(module)
        norm = sharding.clip_gradients(self.parameters, self.grad_norm)
        if not math.isfinite(norm):
            raise FloatingPointError(f"{self.option}: the gradient is not finite; lower it")
        self.rate = lr
        for module in self.modules:
            self._move([p for p in module.parameters() if p.grad is not None])
        return norm

    @torch.no_grad()
    def _move(self, parameters: list[Tensor]) -> None:
        moments = [self._moments(p) for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [m["exp_avg"] for m in moments],
            [m["exp_avg_sq"] for m in moments],
            [],
            [m["step"] for m in moments],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.rate,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )

    def _moments(self, p: Tensor) -> dict[str, Tensor]:
        if p not in self.moments:
            self.moments[p] = {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
            }
        return self.moments[p]

    def state_dict(self) -> dict:
        """The moments by their parameter's number, as of `torch.optim.AdamW`; sharded ones stay
        sharded.
        """
        moments = {i: self.moments[p] for i, p in enumerate(self.parameters) if p in self.moments}
        return {"state": moments}

    def load_state_dict(self, state: dict) -> None:
        """Whole moments, of which a sharded parameter takes its part."""
        self.moments = {}
        for i, moments in state["state"].items():
            p = self.parameters[i]
            self.moments[p] = {
                name: (value if name == "step" else sharding.like(value, p)).to(p.device)
                for name, value in moments.items()
            }


def require_finite(loss: Tensor, what: str, advice: str) -> None:
    """FloatingPointError before a step would spoil the weights. loss: of all ranks, any shape."""
    if not loss.isfinite().all():
        raise FloatingPointError(f"{what}: the loss is not finite; {advice}")
