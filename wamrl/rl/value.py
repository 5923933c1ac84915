"""The critic: what return to expect, from detached features, the robot's state and the clock."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.models.wam import WAM
from wamrl.rl.batch import minibatches
from wamrl.rl.optim import RankedAdamW, require_finite
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.runtime.log import tracked
from wamrl.runtime.ranges import Size

PATIENCE = 5  # epochs without a gain on unseen initial states


@dataclass(frozen=True, kw_only=True)
class ValueConfig:
    """Size of the value head."""

    width: Size = 256

    def build(self, taps: int, feature_dim: int, proprio_dim: int) -> ValueHead:
        return ValueHead(self.width, taps * feature_dim + proprio_dim + 1)


class ValueHead(nn.Module):
    """MLP on token-averaged taps,
    proprioception and elapsed time (a success within a clock depends on the clock).
    """

    def __init__(self, width: int, inputs: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(inputs),
            nn.Linear(inputs, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 1),
        )
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    @staticmethod
    def inputs(features: Tensor, proprio: Tensor, elapsed: Tensor) -> Tensor:
        """features (M, taps, L, D), proprio (M, P),
        elapsed share of the horizon (M,) in [0, 1] -> (M, taps * D + P + 1)
        """
        pooled = features.detach().mean(2).flatten(1)
        return torch.cat([pooled, proprio, elapsed[:, None]], -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, taps * D + P + 1) -> (M,)"""
        return self.net(inputs).squeeze(-1)


class Critic:
    """The value head with its optimiser."""

    def __init__(
        self, cfg: ValueConfig, wam: WAM, *, batch: int, lr: float, eps: float, grad_norm: float
    ):
        """batch: chunks of all ranks in a minibatch."""
        spec = wam.spec
        self.device = next(wam.parameters()).device
        head = cfg.build(len(spec.taps), wam.world.feature_dim, spec.proprio_dim)
        self.head = head.to(self.device)
        self.batch = batch
        self.lr = lr
        self.optimizer = RankedAdamW(
            self.head, eps=eps, grad_norm=grad_norm, option="learner.value_lr"
        )

    @torch.no_grad()
    def inputs(self, wam: WAM, rollout: Rollout) -> Tensor:
        """What the value head reads (M, I) of this rank's decisions, on the CPU."""
        wam.eval()
        decisions = rollout.decisions
        elapsed = decisions.step / rollout.horizon
        out = []
        for rows in torch.arange(len(decisions)).split(self.batch):
            part = wam.with_features(
                decisions.plan[rows].to(self.device), decisions.obs[rows].to(self.device)
            )
            there = elapsed[rows].to(self.device)
            out.append(self.head.inputs(part.features, part.proprio, there).cpu())
        return torch.cat(out)  # of no chunks, too: split() gives one empty part

    @torch.no_grad()
    def values(self, inputs: Tensor) -> Tensor:
        """Expected returns (M,) of inputs (M, I), on the CPU."""
        return self.head(inputs.to(self.device)).cpu()

    def fit(
        self,
        inputs: Tensor,
        returns: Tensor,
        epochs: int,
        generator: torch.Generator,
        unseen: Tensor | None = None,
    ) -> dict[str, float]:
        """Regress the returns (M,) for `epochs` epochs; metrics of the last one.

        unseen: bool (M,), chunks to leave out. Then `epochs` is the most, it ends where those gain
        no more, and the head is as it stood best.
        """
        inputs = inputs.to(self.device)
        returns = returns.to(self.device)
        train = torch.ones_like(returns)
        if unseen is not None:
            train[unseen.to(self.device)] = 0
        best = math.inf
        kept = None
        since = 0  # epochs since the best one
        done = 0
        for _ in tracked("  value head", range(epochs)):
            losses = []
            for own, count in minibatches(len(returns), self.batch, generator):
                rows = own.to(self.device)
                losses.append(self._gradients(inputs[rows], returns[rows], train[rows], count))
                self.optimizer.step(self.lr)
            loss = sum(losses) / len(losses)
            done += 1
            if unseen is None:
                continue
            error = self._unseen_error(inputs, returns, 1 - train)
            since += 1
            if error < best:
                best = error
                kept = copy.deepcopy(self.head.state_dict())
                since = 0
            if since == PATIENCE:
                break
        if kept is not None:
            self.head.load_state_dict(kept)
        return {"actor/value_loss": loss, "actor/value_epochs": float(done)}

    def _gradients(self, inputs: Tensor, returns: Tensor, train: Tensor, count: int) -> float:
        """The gradients of a minibatch of `count` chunks, of which these are this rank's; the mean
        Huber loss over those with `train` (m,) = 1, of all ranks.
        """
        error = F.huber_loss(self.head(inputs), returns, reduction="none")
        loss = (error * train).sum() / count
        whole = dist.all_sum(loss.detach().double().cpu())
        require_finite(whole, "value head", "lower learner.value_lr")
        self.head.zero_grad()
        loss.backward()
        return whole.item()

    @torch.no_grad()
    def _unseen_error(self, inputs: Tensor, returns: Tensor, unseen: Tensor) -> float:
        """Summed Huber loss of the chunks of all ranks with `unseen` (M,) = 1."""
        error = F.huber_loss(self.head(inputs), returns, reduction="none")
        return dist.all_sum((error * unseen).sum().double().cpu()).item()

    def state_dict(self) -> dict:
        """For a bitwise resume."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Take over what `state_dict` gave."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
