"""The fast renderer against MuJoCo's own, side by side: `python benchmarks/render.py [TASK]`.

Same scene, camera and size; both alternate in blocks, and the smallest and the median block count. Also printed: how
different the pictures are (mean absolute difference of 8-bit values): a fast picture of something else is worthless.
"""

from __future__ import annotations

import os
import sys
import time
from statistics import median

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

from wamrl.envs.fast_render import shared_renderer
from wamrl.envs.metaworld import LOOK, MetaWorldConfig
from wamrl.envs.metaworld_tasks import TASKS

SIZE, BLOCKS, FAST, STOCK = 64, 5, 100, 4  # pixels, repetitions, frames per block


def main(task: str) -> None:
    env = MetaWorldConfig(task=task, image_size=SIZE).build()
    env.reset(1)
    model, data, view = env.sim.env.model, env.sim.env.data, TASKS[task].front
    fast, stock = shared_renderer(f"metaworld/{task}", model, SIZE, SIZE, LOOK), mujoco.Renderer(model, SIZE, SIZE)
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance = view.lookat, view.distance
    camera.azimuth, camera.elevation = view.azimuth, view.elevation

    def draw_stock() -> np.ndarray:
        stock.update_scene(data, camera)
        return stock.render()

    def draw_fast() -> np.ndarray:
        return fast.render(model, data, view)

    difference = np.abs(draw_fast().astype(int) - draw_stock().astype(int)).mean()
    seconds: dict[str, list[float]] = {"stock": [], "fast": []}
    for _ in range(BLOCKS):
        for name, draw, n in (("stock", draw_stock, STOCK), ("fast", draw_fast, FAST)):
            begin = time.perf_counter()
            for _ in range(n):
                draw()
            seconds[name].append((time.perf_counter() - begin) / n)
    stock.close()
    print(f"{task}, {SIZE} px, {BLOCKS} alternating blocks; mean absolute difference {difference:.1f} of 255")
    for name, values in seconds.items():
        print(f"  {name:<6} {1 / min(values):7.1f} frames/s at best, {1 / median(values):7.1f} median")
    best, middle = (f(seconds["stock"]) / f(seconds["fast"]) for f in (min, median))
    print(f"  ratio  {best:7.1f} at best, {middle:.1f} median")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "button-press")
