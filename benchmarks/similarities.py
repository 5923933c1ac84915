"""What each similarity thinks of blurred and late imaginations,
and how far optical flow sees. Point environment.

python benchmarks/similarities.py [DINOV2_FOLDER VJEPA2_FOLDER]        (else small random networks)
"""

import sys

import numpy as np
import torch
from torch import Tensor

from wamrl.envs.point import PointConfig
from wamrl.rewards.base import reconstruction
from wamrl.rewards.features import DINOv2Config, VJEPA2Config
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.rewards.pixels import PixelConfig


def expert_frames(seed: int, size: int) -> tuple[Tensor, np.ndarray]:
    """float32 (S+1, H, W, 3) and the disc's place in px (S+1, 2), x to the right and y down."""
    env = PointConfig(image_size=size).build()
    env.reset(seed)
    expert, frames, places = env.expert(), [env.render()[0]], [env.scene.position]
    while not env.step(expert.action()).terminated:
        frames.append(env.render()[0])
        places.append(env.scene.position)
    return torch.from_numpy(np.stack(frames)).float() / 255, np.stack(places) * [
        1,
        -1,
    ] * size / 2 / 1.15 + size / 2


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, H, W, 3), sigma in px."""
    t = torch.arange(-int(3 * sigma), int(3 * sigma) + 1)
    weight = torch.exp(-(t**2) / (2 * sigma**2))
    y = torch.nn.functional.pad(x.permute(0, 3, 1, 2), [len(t) // 2] * 4, mode="reflect")
    y = torch.nn.functional.conv2d(
        y, (weight.outer(weight) / weight.sum() ** 2).expand(3, 1, -1, -1), groups=3
    )
    return y.permute(0, 2, 3, 1)


def gains(similarity, episodes: list[Tensor], late: int, sigma: float) -> float:
    """Sum of rec(imagined, executed) - rec(last, executed),
    over that of -rec(last, executed); frames after 4 and 8.
    """
    gain, whole = 0.0, 0.0
    for frames in episodes:
        for start in range(0, len(frames) - 8, 8):
            last, executed = frames[start], frames[[start + 4, start + 8]]
            imagined = frames[[max(start, start + 4 - late), max(start, start + 8 - late)]]
            imagined = blurred(imagined, sigma) if sigma else imagined
            real = torch.ones(1, 2, dtype=torch.bool)
            parts = [x[None, :, None] for x in (imagined, executed, last.expand_as(executed))]
            copied = -reconstruction(similarity, parts[2], parts[1], last[None, None], real).item()
            gain += (
                copied
                + reconstruction(similarity, parts[0], parts[1], last[None, None], real).item()
            )
            whole += copied
    return gain / whole


def main() -> None:
    torch.set_num_threads(1)
    dino, jepa = sys.argv[1:3] if len(sys.argv) > 2 else (None, None)
    size = {} if dino else {"size": 112}
    networks = (DINOv2Config(weights=dino, **size), VJEPA2Config(weights=jepa, **size))
    configs = (PixelConfig(), OpticalFlowConfig(), *networks)
    episodes = [expert_frames(seed, 32)[0] for seed in range(12)]
    print(
        "gain over copying / error of the copy (1: perfect, 0: a copy), 32 px, 12 episodes of the "
        "expert"
    )
    print(f"{'late by':<14}{'blur':<8}" + "".join(f"{c.name:>16}" for c in configs))
    similarities = [c.build() for c in configs]
    for late in (0, 1, 2, 4):
        for sigma in (0.0, 0.5, 1.0, 2.0):
            row = "".join(f"{gains(s, episodes, late, sigma):16.2f}" for s in similarities)
            print(f"{late} steps       {sigma} px  {row}")

    print(
        "\noptical flow (dis) of the disc: median error in px by the true shift in diameters of "
        "the disc, 64 px"
    )
    flow, errors = OpticalFlowConfig().build(), {}
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    for seed in range(12):
        frames, place = expert_frames(seed, 64)
        for k in range(1, min(9, len(frames))):
            first, second = (flow.prepare(f[None]) for f in (frames[0], frames[k]))
            field = torch.nn.functional.interpolate(
                flow.estimate(first, second) / 2, (64, 64), mode="area"
            )[0].numpy()
            disc = np.hypot(x - place[0, 0], y - place[0, 1]) < 0.1 * 64 / 2 / 1.15
            shift = place[k] - place[0]
            error = np.linalg.norm(np.median(field[:, disc], 1) - shift)
            errors.setdefault(int(np.linalg.norm(shift) / (0.3 * 64 / 2 / 1.15) / 0.5), []).append(
                error
            )
    for bin in sorted(errors):
        print(
            f"{bin / 2:.1f} to {bin / 2 + 0.5:.1f}: {np.median(errors[bin]):5.2f}   (n = "
            f"{len(errors[bin])})"
        )


if __name__ == "__main__":
    main()
