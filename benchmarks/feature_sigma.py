"""What acting costs when the actor reads denoised imagination
(feature_sigma=0) and one pass at pure noise (1).

`python benchmarks/feature_sigma.py`: the nano model, 32 observations,
both alternating; smallest and median of 15.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import time
from statistics import median

import torch

from wamrl.models.check import probe
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.types import Clip

ROWS, REPEATS = 32, 15


def main() -> None:
    models = {
        s: WAMConfig(world=VideoDiTConfig(feature_sigma=s)).build(
            views=1, image_hw=(64, 64), action_dim=4, proprio_dim=7
        )
        for s in (1.0, 0.0)
    }
    obs = Clip.cat([probe(models[1.0], seed) for seed in range(-(-ROWS // 3))])[slice(0, ROWS)].obs
    seeds, seconds = torch.arange(ROWS), {s: [] for s in models}
    for _ in range(REPEATS + 1):
        for sigma, wam in models.items():
            generators = [torch.Generator().manual_seed(i) for i in range(ROWS)]
            begin = time.perf_counter()
            wam.act(obs, seeds, FlowConfig(), generators, sampler="explore")
            seconds[sigma].append(time.perf_counter() - begin)
    for sigma, values in seconds.items():
        print(
            f"feature_sigma {sigma}: {1e3 * min(values[1:]):.0f} ms at best, "
            f"{1e3 * median(values[1:]):.0f} median"
        )
    best, middle = (f(seconds[0.0][1:]) / f(seconds[1.0][1:]) for f in (min, median))
    print(f"ratio: {best:.2f} at best, {middle:.2f} median, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
