"""`FlowWorldModel`: a world model that denoises latents, with the loop and the loss written once.

Subclass it for any flow-matching network, on pixels or on the latents of a VAE. What stays yours is
the network (`predict`), the way into its latents and back, and what it remembers of the past.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from wamrl.models.base import WorldModel
from wamrl.models.flow import (
    draws,
    expand,
    interpolate,
    ode_sample,
    time_grid,
    time_grid_down_to,
)
from wamrl.types import Clip


class FlowWorldModel(WorldModel):
    """Flow matching in latents z (B, *latent_shape): x_s = (1 - s) x + s eps, v = eps - x."""

    latent_shape: tuple[int, ...]  # of one row, whatever suits the network
    # share of training samples at exactly sigma = 1, where a one-step imagination starts
    noise_fraction: float = 0.3
    # below it the weight of a training sample falls with sigma^2, see `loss`
    sigma_floor: float = 0.3
    shift: float = 1.0  # of the time grid of imaginations, see `flow.time_grid`

    @abstractmethod
    def predict(self, z: Tensor, sigma: Tensor, context: Any) -> tuple[Tensor, Tensor]:
        """One pass: the velocity, shaped like z, and the features, (B, taps, L, D).

        z: float32 (B, *latent_shape). sigma: float32 (B,), 1 is noise and 0 is data.
        """

    @abstractmethod
    def to_latents(self, future: Tensor, context: Any) -> Tensor:
        """uint8 frames (B, F, V, H, W, 3) that follow the context, as latents z."""

    @abstractmethod
    def to_frames(self, z: Tensor, context: Any) -> Tensor:
        """The inverse: float32 frames in [0, 1], (B, F, V, H, W, 3), that follow the context."""

    def latent_mask(self, future_mask: Tensor) -> Tensor:
        """Which entries of the latents' first dimension hold real frames only, bool (B, n).

        future_mask: bool (B, F), which frames are real. Override it for latents that are not one
        per frame.
        """
        return future_mask

    def features(self, context: Any, seeds: Tensor) -> Tensor:
        """See `WorldModel`: the taps of one pass at `spec.feature_sigma`."""
        sigma = self.spec.feature_sigma
        z = self.noise(seeds)
        if sigma < 1:
            with torch.no_grad():
                z = self._denoise(z, context, time_grid_down_to(sigma, self.spec.feature_steps))
        _, features = self.predict(z, z.new_full((len(z),), sigma), context)
        return features

    def imagine(self, context: Any, seeds: Tensor, steps: int) -> Tensor:
        """See `WorldModel`: `steps` Euler steps from the seeds' noise, then to frames."""
        z = self._denoise(self.noise(seeds), context, time_grid(steps, self.shift))
        return self.to_frames(z, context)

    def loss(self, clip: Clip, context: Any, seeds: Tensor) -> Tensor:
        """min(1, sigma / floor)^2 |v - (eps - x)|^2, its mean over real latents, (B,).

        sigma is uniform but for `noise_fraction` of the samples. The weight is for networks that
        predict x and divide by sigma: it bounds the 1 / sigma^2 of nearly clean samples.
        Latents are (n, ...), of which `latent_mask` says which are real.
        """
        x = self.to_latents(clip.future, context)
        assert x.shape[1:] == self.latent_shape, (x.shape, self.latent_shape)
        mask = self.latent_mask(clip.future_mask)
        assert x.shape[1] == mask.shape[1], "latents must be as many as `latent_mask` says"
        chance, eps = draws(seeds, 2, self.latent_shape, x.device)
        sigma = torch.where(chance[:, 1] < self.noise_fraction, 1.0, chance[:, 0]).to(x.device)
        velocity, _ = self.predict(interpolate(x, eps, sigma), sigma, context)
        weight = (sigma / self.sigma_floor).clamp(max=1).square()
        error = (velocity.float() - (eps - x)).square() * expand(weight, x)
        error = error.flatten(2).mean(2) * mask
        return error.sum(1) / mask.sum(1).clamp(min=1)

    def noise(self, seeds: Tensor) -> Tensor:
        """What a denoising starts from: standard normal (B, *latent_shape), a row from its seed."""
        device = next(self.parameters()).device
        _, noise = draws(seeds, 0, self.latent_shape, device)
        return noise

    def _denoise(self, z: Tensor, context: Any, grid: Tensor) -> Tensor:
        return ode_sample(lambda z, sigma: self.predict(z, sigma, context)[0], z, grid)
