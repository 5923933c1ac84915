"""The fast renderer against MuJoCo's own:
`python benchmarks/render.py [TASK]`, or `python -m benchmarks render`.

Same scene, camera and size; both alternate in blocks. Also printed: how
different the pictures are (mean absolute difference of 8-bit values):
a fast picture of something else is worthless.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np

from benchmarks.side_by_side import finish, interleave, parser, row, single
from wamrl.envs.metaworld.env import STYLE, MetaWorldConfig
from wamrl.envs.metaworld.tasks import TASKS
from wamrl.envs.rendering import shared_renderer

SIZE, BLOCKS, FAST, STOCK = 64, 5, 100, 4  # pixels, repetitions, frames per block


def measure(task: str, blocks: int) -> list[dict]:
    env = MetaWorldConfig(task=task, image_size=SIZE).build()
    env.reset(1)
    model, data, view = env.scene.sim.env.model, env.scene.sim.env.data, TASKS[task].front
    fast, stock = (
        shared_renderer(f"metaworld/{task}", model, SIZE, SIZE, STYLE),
        mujoco.Renderer(model, SIZE, SIZE),
    )
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance = view.lookat, view.distance
    camera.azimuth, camera.elevation = view.azimuth, view.elevation

    def draw_stock() -> np.ndarray:
        stock.update_scene(data, camera)
        return stock.render()

    def draw_fast() -> np.ndarray:
        return fast.render(model, data, view)

    difference = np.abs(draw_fast().astype(int) - draw_stock().astype(int)).mean()
    sides = {
        "ours": lambda: [draw_fast() for _ in range(FAST)],
        "peer": lambda: [draw_stock() for _ in range(STOCK)],
    }
    seconds = interleave(sides, blocks)
    stock.close()
    ours, peer = [s / FAST for s in seconds["ours"]], [s / STOCK for s in seconds["peer"]]
    rates = f"{1 / min(ours):.0f} and {1 / min(peer):.0f} frames/s at best"
    what = f"frame of {SIZE} px"
    return [
        row(what, ours, peer, unit="ms", note=f"{task}, {rates}"),
        single("mean absolute difference of the pictures", [difference], "of 255"),
    ]


if __name__ == "__main__":
    p = parser()
    p.add_argument("task", nargs="?", default="button-press")
    o = p.parse_args()
    finish("render", measure(o.task, 2 if o.quick else BLOCKS), o)
