"""A renderer for small frames on machines without a GPU: see `benchmarks/render.py`.

What costs time in software OpenGL is not the number of pixels but shadows, reflections,
multisampling and the 67,000 faces of the robot's meshes. So the meshes of a *copy* of the model are
thinned by vertex clustering and the effects switched off; the copy is used by the renderer alone,
physics keeps the original. One GL context serves the process, one renderer serves all environments
with the same model. mujoco is imported when a renderer is made, not with this module.
"""

from __future__ import annotations

import atexit
import copy
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

_GL_HELP = (
    "rendering needs OpenGL by EGL or OSMesa, and none could be started ({error}): "
    "install libegl1 and libgl1-mesa-dri with apt, or libosmesa6 and set MUJOCO_GL=osmesa"
)
_CARRIED = ("geom_rgba", "geom_size", "site_rgba", "site_size")  # read from the model while drawing
_context: dict[int, Any] = {}  # process id -> GL context; a forked child must not use its parent's
_renderers: dict[tuple, FastRenderer] = {}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera that looks at a point (metres, world axes) from a distance;
    angles in degrees as MuJoCo defines them.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float  # 90 looks along +y, 180 along -x
    elevation: float  # negative looks down
    # when set, `lookat` is an offset in the world's axes from this body: a camera that travels with
    # it
    body: str = ""


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """One of the model's own cameras, by its name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class RenderStyle:
    """What is drawn differently from the model as it stands.
    It is part of a shared renderer's key.
    """

    # groups of geoms that are not drawn, such as shapes for collisions
    hidden: tuple[int, ...] = ()
    plain: tuple[str, ...] = ()  # geoms drawn in their own colour, without their material
    # meshes with fewer faces are not thinned: small parts are what the task is about
    keep_below: int = 300


_AS_IT_IS = RenderStyle()


@dataclass(frozen=True, kw_only=True)
class Marker:
    """A ball drawn into the picture only; physics does not know it. One picture cannot tell how far
    away a floating ball is, so it stands on a thin stem whose foot shows where it is above the
    table (z = 0)."""

    position: tuple[float, float, float]  # metres
    radius: float = 0.025
    rgba: tuple[float, float, float, float] = (0.0, 0.9, 0.1, 1.0)


def shared_renderer(
    key: str, model: Any, height: int, width: int, style: RenderStyle = _AS_IT_IS
) -> FastRenderer:
    """The process's renderer for this kind of model;
    `key` names the model, so equal keys must mean equal meshes.
    """
    full = (os.getpid(), key, height, width, style)
    if full not in _renderers:
        _renderers[full] = FastRenderer(model, height, width, style)
    return _renderers[full]


class FastRenderer:
    """Draws MjData of any model with the same bodies,
    geoms and sites as the one it was made for.
    """

    def __init__(self, model: Any, height: int, width: int, style: RenderStyle = _AS_IT_IS) -> None:
        import mujoco

        self._mj = mujoco
        self._gl = gl_context()
        self._model = drawing_copy(model, height, width, style)
        self._scene = mujoco.MjvScene(
            self._model, maxgeom=self._model.ngeom + self._model.nsite + 64
        )
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_HAZE,
            mujoco.mjtRndFlag.mjRND_FOG,
        ):
            self._scene.flags[flag] = 0
        self._option = mujoco.MjvOption()
        # the simulators' sites are debugging aids; goals are drawn as markers
        self._option.sitegroup[:] = 0
        self._option.geomgroup[list(style.hidden)] = 0
        self._camera = mujoco.MjvCamera()
        self._gl.make_current()
        self._drawing = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.zeros((height, width, 3), np.uint8)

    def render(
        self, model: Any, data: Any, camera: Camera | Fixed, markers: tuple[Marker, ...] = ()
    ) -> np.ndarray:
        """One frame, uint8 (H, W, 3), row 0 on top. `data` is read, never written."""
        mj = self._mj
        for name in _CARRIED:
            getattr(self._model, name)[:] = getattr(model, name)
        self._aim(data, camera)
        mj.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mj.mjtCatBit.mjCAT_ALL, self._scene
        )
        for marker in markers:
            self._draw_marker(marker)
        self._gl.make_current()
        mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        mj.mjr_render(self._viewport, self._scene, self._drawing)
        mj.mjr_readPixels(self._pixels, None, self._viewport, self._drawing)
        return self._pixels[::-1].copy()  # OpenGL's first row is the bottom one

    def _aim(self, data: Any, camera: Camera | Fixed) -> None:
        if isinstance(camera, Fixed):
            self._camera.type = self._mj.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = self._model.camera(camera.name).id
            return
        self._camera.type = self._mj.mjtCamera.mjCAMERA_FREE
        self._camera.fixedcamid = -1
        origin = data.body(camera.body).xpos if camera.body else 0.0
        self._camera.lookat[:] = origin + np.asarray(camera.lookat)
        self._camera.distance = camera.distance
        self._camera.azimuth = camera.azimuth
        self._camera.elevation = camera.elevation

    def _draw_marker(self, marker: Marker) -> None:
        shape = self._mj.mjtGeom
        x, y, z = marker.position
        self._draw(shape.mjGEOM_SPHERE, (marker.radius,) * 3, (x, y, z), marker.rgba)
        if z > 2 * marker.radius:
            self._draw(shape.mjGEOM_CYLINDER, (0.006, z / 2, 0), (x, y, z / 2), marker.rgba)
            self._draw(
                shape.mjGEOM_CYLINDER, (marker.radius / 2, 0.002, 0), (x, y, 0.002), marker.rgba
            )

    def _draw(self, shape: Any, size: tuple, position: tuple, rgba: tuple) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        self._mj.mjv_initGeom(
            geom,
            shape,
            np.array(size, np.float64),
            np.array(position, np.float64),
            np.eye(3).flatten(),
            np.array(rgba, np.float32),
        )
        geom.emission = 0.6  # the goal must not vanish in the shade
        self._scene.ngeom += 1


def gl_context() -> Any:
    """The process's GL context, made when first asked for;
    ValueError says what to install where there is none.
    """
    pid = os.getpid()
    if pid not in _context:
        # llvmpipe's own threads fight with the pool's worker processes
        os.environ.setdefault("LP_NUM_THREADS", "0")
        backend = os.environ.setdefault("MUJOCO_GL", "egl").lower()
        try:
            if backend == "osmesa":
                from mujoco.osmesa import GLContext
            else:
                from mujoco.egl import GLContext
            context = GLContext(64, 64)
            context.make_current()
        except Exception as error:
            # PyOpenGL raises AttributeError, ImportError or its own errors, by platform
            raise ValueError(_GL_HELP.format(error=f"{type(error).__name__}: {error}")) from error
        _context[pid] = context
        atexit.register(_free)
    return _context[pid]


def _free() -> None:
    """Free what this process holds while OpenGL is still there;
    at exit it is gone before the destructors.
    """
    _renderers.clear()
    if context := _context.pop(os.getpid(), None):
        context.free()


def drawing_copy(
    model: Any, height: int, width: int, style: RenderStyle = _AS_IT_IS, cell: float = 0.02
) -> Any:
    """A copy of the model with thinned meshes (cells of `cell` metres) and cheap effects,
    for the renderer only.
    """
    import mujoco

    thin = copy.copy(model)
    for mesh in range(thin.nmesh):
        thin_mesh(thin, mesh, cell, style.keep_below)
    thin.vis.quality.shadowsize = 0
    thin.vis.quality.offsamples = 0
    thin.vis.global_.offwidth = width
    thin.vis.global_.offheight = height
    thin.mat_reflectance[:] = 0
    for name in style.plain:
        if (geom := mujoco.mj_name2id(thin, mujoco.mjtObj.mjOBJ_GEOM, name)) >= 0:
            thin.geom_matid[geom] = -1
    return thin


def thin_mesh(model: Any, mesh: int, cell: float, keep_below: int = 300) -> None:
    """Merge the vertices of one mesh that share a grid cell,
    in place, and drop the faces that collapse.

    Meshes with fewer than `keep_below` faces stay as they are:
    small parts are what the task is about.
    """
    faces = int(model.mesh_facenum[mesh])
    vertices = int(model.mesh_vertnum[mesh])
    if faces < keep_below:
        return
    first_face = int(model.mesh_faceadr[mesh])
    first_vertex = int(model.mesh_vertadr[mesh])
    points_V3 = model.mesh_vert[first_vertex : first_vertex + vertices]
    cells_V3 = np.floor((points_V3 - points_V3.min(0)) / cell).astype(np.int64)
    _, first_V, group_V = np.unique(cells_V3, axis=0, return_index=True, return_inverse=True)
    leader_V = first_V[group_V.reshape(-1)]
    rows = slice(first_face, first_face + faces)
    merged_F3 = leader_V[model.mesh_face[rows]]
    a, b, c = merged_F3.T
    alive_F = (a != b) & (b != c) & (a != c)
    _, unique = np.unique(np.sort(merged_F3[alive_F], axis=1), axis=0, return_index=True)
    kept = np.flatnonzero(alive_F)[np.sort(unique)]
    # indices into the mesh's own normals, untouched by merging
    for name in ("mesh_facenormal", "mesh_facetexcoord"):
        table = getattr(model, name)
        table[first_face : first_face + len(kept)] = table[rows][kept]
    model.mesh_face[first_face : first_face + len(kept)] = merged_F3[kept]
    model.mesh_facenum[mesh] = len(kept)
    # the convex hull, drawn only on demand, belongs to the old faces
    model.mesh_graphadr[mesh] = -1
