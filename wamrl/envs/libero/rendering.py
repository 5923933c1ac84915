"""LIBERO's cameras drawn as robosuite 1.4 draws them, pixel by pixel,
with one GL context for the whole process.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from wamrl.envs.rendering import gl_context

# robosuite's own buffer, which decides where multisampling puts its samples
_OFFSCREEN = (640, 480)
_renderers: dict[tuple, OfficialRenderer] = {}


def official_renderer(key: str, model: Any) -> OfficialRenderer:
    """The process's renderer for this task;
    `key` names the model, so equal keys must mean equal meshes.
    """
    full = (os.getpid(), key)
    if full not in _renderers:
        for old in [k for k in _renderers if k[0] != os.getpid()]:
            del _renderers[old]
        _renderers[full] = OfficialRenderer(model)
    return _renderers[full]


class OfficialRenderer:
    """Draws any model with the same meshes and textures as the one it was made for."""

    def __init__(self, model: Any) -> None:
        import mujoco

        self._mj = mujoco
        self._gl = gl_context()
        self._gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._option.geomgroup[1] = 1
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)

    def render(self, model: Any, data: Any, camera: str, size: int) -> np.ndarray:
        """One frame, uint8 (size, size, 3), as OpenGL has it:
        row 0 at the bottom, robosuite's raw image.
        """
        mj = self._mj
        self._gl.make_current()
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._camera.fixedcamid = model.camera(camera).id
        mj.mjv_updateScene(
            model, data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL, self._scene
        )
        view = mj.MjrRect(0, 0, size, size)
        pixels = np.empty((size, size, 3), np.uint8)
        mj.mjr_render(view, self._scene, self._drawing)
        mj.mjr_readPixels(pixels, None, view, self._drawing)
        return pixels
