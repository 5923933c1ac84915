"""How fast are training batches made? Frames in memory, on disk, and in videos, side by side, in turns.

python benchmarks/loader.py [--size 64] [--episodes 100]
One batch: 32 clips of one history frame and two future frames. Every source holds the same episodes.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from wamrl.data.clips import ClipDataset
from wamrl.data.lerobot import open_lerobot, write
from wamrl.data.recording import InMemory, Recording
from wamrl.data.store import open_store, save
from wamrl.envs.base import EnvSpec
from wamrl.types import Episode

SPEC = EnvSpec(
    name="noise", instruction="t", views=("front",), image_hw=(0, 0), action_dim=4, proprio_dim=7, horizon=99
)  # fmt: skip


def episode(seed: int, size: int, length: int = 99) -> Episode:
    """Smooth moving pictures, so that a video codec has something like a camera to compress."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    phase, speed = rng.uniform(0, 6, (2, 3, 1, 1)), rng.uniform(0.05, 0.2, (3, 1, 1))
    pictures = [np.sin(phase[0] + 9 * x + s * speed) * np.cos(phase[1] + 7 * y) for s in range(length + 1)]
    frames = (127 * (1 + np.stack(pictures))).astype(np.uint8).transpose(0, 2, 3, 1)[:, None]
    numbers = rng.normal(size=(length + 1, 11)).astype(np.float32)
    return Episode(
        frames=frames, proprio=numbers[:, :7], actions=numbers[1:, 7:], executed=numbers[1:, 7:], success=True,
        stages=1, seed=seed, text="t",
    )  # fmt: skip


def seconds(data: ClipDataset, batches: int) -> float:
    g, begin = torch.Generator().manual_seed(0), time.perf_counter()
    for _ in range(batches):
        data.sample(32, g)
    return (time.perf_counter() - begin) / batches


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    episodes = [episode(i, args.size) for i in range(args.episodes)]
    with tempfile.TemporaryDirectory() as folder:
        spec = EnvSpec(**(vars(SPEC) | {"image_hw": (args.size, args.size)}))
        save(episodes, spec, Path(folder) / "store")
        sources: dict[str, Recording] = {"memory": InMemory(episodes), "disk": open_store(Path(folder) / "store")}
        for codec in ("h264", "av1"):
            write(Path(folder) / codec, episodes, views=("front",), fps=20, codec=codec)
            sources[f"LeRobot video ({codec})"] = open_lerobot(Path(folder) / codec)
        data = {name: ClipDataset(source, (0,), (6, 12), 12) for name, source in sources.items()}
        times: dict[str, list[float]] = {name: [] for name in data}
        for name in [*data] * 5:
            times[name].append(seconds(data[name], 10))
    print("| frames | ms per batch of 32 clips | against memory |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {1000 * median(found):.1f} | {median(found) / median(times['memory']):.1f} x |")


if __name__ == "__main__":
    main()
