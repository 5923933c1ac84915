"""How fast are training batches made?
Frames in memory, on disk, and in videos, side by side, in turns.

python benchmarks/loader.py [--size 64] [--episodes 100], or `python -m benchmarks loader`.
One batch: 32 clips of one history frame and two future frames.
Every source holds the same episodes.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.side_by_side import finish, interleave, parser, row
from wamrl.data.clips import ClipDataset
from wamrl.data.episodes import open_store, save
from wamrl.data.lerobot import open_lerobot, write
from wamrl.data.recording import InMemory, Recording
from wamrl.envs.base import EnvSpec
from wamrl.types import Episode

SPEC = EnvSpec(
    name="noise",
    instruction="t",
    views=("front",),
    image_hw=(0, 0),
    action_dim=4,
    proprio_dim=7,
    horizon=99,
)
BATCHES = 10  # per round


def episode(seed: int, size: int, length: int = 99) -> Episode:
    """Smooth moving pictures, so that a video codec has something like a camera to compress."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    phase, speed = rng.uniform(0, 6, (2, 3, 1, 1)), rng.uniform(0.05, 0.2, (3, 1, 1))
    pictures = [
        np.sin(phase[0] + 9 * x + s * speed) * np.cos(phase[1] + 7 * y) for s in range(length + 1)
    ]
    frames = (127 * (1 + np.stack(pictures))).astype(np.uint8).transpose(0, 2, 3, 1)[:, None]
    numbers = rng.normal(size=(length + 1, 11)).astype(np.float32)
    return Episode(
        frames=frames,
        proprio=numbers[:, :7],
        actions=numbers[1:, 7:],
        executed=numbers[1:, 7:],
        success=True,
        stages=1,
        seed=seed,
        text="t",
    )


def batches(data: ClipDataset) -> None:
    """BATCHES of 32 clips, the same ones from every source."""
    g = torch.Generator().manual_seed(0)
    for _ in range(BATCHES):
        data.sample(32, g)


def main() -> None:
    p = parser()
    p.add_argument("--size", type=int, default=64, help="pixels")
    p.add_argument("--episodes", type=int, default=100)
    args = p.parse_args()
    args.episodes = 4 if args.quick else args.episodes
    torch.set_num_threads(1)
    episodes = [episode(i, args.size) for i in range(args.episodes)]
    with tempfile.TemporaryDirectory() as folder:
        spec = EnvSpec(**(vars(SPEC) | {"image_hw": (args.size, args.size)}))
        save(episodes, spec, Path(folder) / "store")
        sources: dict[str, Recording] = {
            "memory": InMemory(episodes),
            "disk": open_store(Path(folder) / "store"),
        }
        for codec in ("h264", "av1"):
            write(Path(folder) / codec, episodes, views=("front",), fps=20, codec=codec)
            sources[f"LeRobot video ({codec})"] = open_lerobot(Path(folder) / codec)
        data = {name: ClipDataset(source, (0,), (6, 12), 12) for name, source in sources.items()}
        exact = [
            data[name].sample(32, torch.Generator().manual_seed(0)).frames
            for name in ("memory", "disk")
        ]
        assert torch.equal(*exact), "disk gives other frames than memory"
        seconds = interleave(
            {name: lambda d=d: batches(d) for name, d in data.items()}, 2 if args.quick else 5
        )
    rows = [
        row(
            f"batch of 32 clips, {name}",
            found,
            seconds["memory"],
            scale=1e3 / BATCHES,
            note="peer: frames in memory",
        )
        for name, found in seconds.items()
        if name != "memory"
    ]
    finish("loader", rows, args)


if __name__ == "__main__":
    main()
