"""LIBERO: a simulated Panda arm, 130 tasks in five suites.
Needs `pip install -e '.[libero]'` in its own environment.

Actions, float32 (7,), 20 Hz: hand displacement x, y, z (1 = 5 cm ahead of where the hand is),
rotation as an axis-angle vector in the world's axes (1 = 0.5 rad), gripper (-1 opens, +1 closes).
Proprioception, float32 (8,): hand position in metres, hand orientation as an axis-angle vector, the
two finger joints in metres; as OpenVLA and openpi feed it.

Pictures are those that policies trained on LIBERO expect (OpenVLA `get_libero_image`, openpi
`examples/libero`): robosuite's raw image, whose row 0 is the bottom, turned by 180 degrees. So they
are upright, and left and right are exchanged: writing is mirrored. The official size is 256; other
sizes are drawn at that size.

Evaluation protocol (LIBERO; horizons as in OpenVLA and openpi): 50 fixed initial states per task,
10 steps to settle, success = the goal predicate of the task's BDDL file. The `eval` start with
index i is the fixed state i modulo 50. All other starts draw their placements from the task's
regions, so nothing is trained on what is evaluated.

Example:
    env = LiberoConfig(suite="object", task=0).build()
    env.reset(InitialState(split="eval", index=0).seed)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wamrl.envs.base import EnvConfig, EnvSpec, Expert
from wamrl.envs.libero.assets import INIT_STATES, NO_FOLDER, SUITES, import_libero, tasks
from wamrl.envs.libero.expert import make_expert
from wamrl.envs.libero.rendering import official_renderer
from wamrl.envs.libero.simulation import CONTROL_HZ, Simulation
from wamrl.envs.simulated import (
    Progress,
    Scene,
    SimulatedEnv,
    require_image_size,
    require_views,
)
from wamrl.runtime.ranges import Count, CountOrZero, Pixels, check_ranges
from wamrl.types import InitialState

# control steps after settling
HORIZONS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
VIEWS = {"front": "agentview", "wrist": "robot0_eye_in_hand"}


@dataclass(frozen=True, kw_only=True)
class LiberoConfig(EnvConfig):
    """One task of LIBERO (hf-libero 0.1.4), by suite and official index."""

    suite: str = "object"  # "spatial", "object", "goal", "10" (long) or "90"
    task: CountOrZero = 0
    image_size: Pixels = 256  # pixels, square
    views: tuple[str, ...] = ("front", "wrist")
    # folder with scenes/, textures/, ...; None: the package's own or the hub's
    assets: Path | None = None
    horizon: Count | None = None  # control steps; None: the protocol's

    def validate(self) -> None:
        """ValueError for an unknown suite or task, an impossible view, size or folder."""
        check_ranges(self, "env")
        if self.suite not in SUITES:
            raise ValueError(
                f"unknown LIBERO suite {self.suite!r}: choose one of {', '.join(SUITES)}"
            )
        if not 0 <= self.task < SUITES[self.suite]:
            raise ValueError(
                f"suite {self.suite!r} has no task {self.task}: choose 0 to "
                f"{SUITES[self.suite] - 1}"
            )
        require_image_size(self.image_size, 16, 480)
        require_views(self.views, VIEWS)
        if self.assets is not None and not self.assets.is_dir():
            raise ValueError(NO_FOLDER.format(path=self.assets))

    def build(self) -> SimulatedEnv:
        """The environment; ValueError if LIBERO or its assets are missing."""
        self.validate()
        import_libero()
        return SimulatedEnv(LiberoScene(self))


class LiberoScene(Scene):
    """One task: its starts, its cameras, and what the policy is told of the arm.
    Rendering reads the simulation and never changes it, so skipping frames changes nothing.
    """

    carries = False

    def __init__(self, config: LiberoConfig) -> None:
        self.task = tasks(config.suite)[config.task]
        self.sim = Simulation(self.task, config.assets)
        self.spec = EnvSpec(
            name=f"libero-{config.suite}/{config.task}",
            instruction=self.task.instruction,
            views=config.views,
            image_hw=(config.image_size, config.image_size),
            action_dim=7,
            proprio_dim=8,
            horizon=config.horizon or HORIZONS[config.suite],
            stages=len(self.sim.goals),
            control_hz=CONTROL_HZ,
        )

    def reset(self, seed: int) -> None:
        """Put the start that belongs to `seed`: an official state if it is of the split `eval`."""
        start = InitialState.of(seed)
        # the same fixtures whenever the same fixed state comes round again
        if start.split == "eval":
            state = start.index % INIT_STATES
            self.sim.reset(InitialState(split="eval", index=state).seed, state)
        else:
            self.sim.reset(seed, None)

    def step(self, action: np.ndarray) -> Progress:
        """One control step of 50 ms; success is the goal predicate of the task's BDDL file."""
        solved = self.sim.step(action)
        return Progress(success=all(solved), stages=sum(solved), engaged=self._holds(solved))

    def _holds(self, solved: list[bool]) -> bool:
        """Is an object that is not yet where the goal wants it between the fingers?"""
        goals = zip(self.sim.goals, solved, strict=True)
        placed = {goal[1] for goal, done in goals if done}
        return any(self.sim.held(name) for name in self.sim.movable() if name not in placed)

    def render(self) -> np.ndarray:
        """The official pictures, turned by 180 degrees."""
        sim = self.sim
        size = self.spec.image_hw[0]
        draw = official_renderer(self.spec.name, sim.model).render
        return np.stack(
            [draw(sim.model, sim.seen, VIEWS[view], size)[::-1, ::-1] for view in self.spec.views]
        )

    def proprio(self) -> np.ndarray:
        """Hand position (3), metres; its axis-angle vector (3); both finger joints (2), metres."""
        return self.sim.proprio().astype(np.float32)

    def expert(self) -> Expert:
        """The scripted expert of this task; ValueError where there is none."""
        return make_expert(self.task, self.sim)
