"""A control step of MetaWorld against bare physics of the same scene; success flags checked.

    python -m benchmarks.metaworld_step [--quick] [--out FILE]
    python -m benchmarks.metaworld_step --check [--steps 10000] [--tasks hammer reach]

Ours is `SimulatedEnv.step`: physics, success, attempts, stages.
The peer is `mj_step(model, data, 5)`.
Episodes of ours are recorded: the full state in which each `mj_step` begins, and where it ends.
The peer starts each step from that state and must end where ours did, bit for bit.
MetaWorld's own step, with observation and reward, plays the same episodes: see the remarks.
Times are processor time: a control step is shorter than what others take of a core.
The ratio is our rate as a share of the bare rate.

`--check` plays random and noisy expert actions in two scenes, by our step and by MetaWorld's own.
It compares state and success flag after every step, and goes on for a while after a success.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import mujoco
import numpy as np

from benchmarks.side_by_side import finish, parser, row
from wamrl.envs.base import Expert
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.metaworld.expert import make_expert
from wamrl.envs.metaworld.simulation import Simulation
from wamrl.envs.metaworld.tasks import TASKS
from wamrl.envs.simulated import SimulatedEnv

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
NOISE = 0.3  # standard deviation of what is added to the expert's actions
EPISODES = 3  # experts' episodes in a round
FREE_STEPS = 400  # control steps of a round with the hand free
AFTER = 20  # control steps of a check's episode after its first success


@dataclass
class Episode:
    """What was played from one initial state."""

    seed: int
    actions: list[np.ndarray] = field(default_factory=list)  # float32 (4,) each
    states: list[np.ndarray] = field(default_factory=list)  # where `mj_step` begins, float64 (S,)
    ends: list[np.ndarray] = field(default_factory=list)  # qpos after the step


def record(env: SimulatedEnv, episode: Episode, action: np.ndarray) -> bool:
    """Play one control step and keep it; is the episode over?"""
    result = env.step(action)
    episode.actions.append(action)
    episode.ends.append(env.scene.sim.env.data.qpos.copy())
    return result.terminated or result.truncated


def free(env: SimulatedEnv, seed: int) -> Episode:
    """Small random moves with an open hand."""
    env.reset(seed)
    episode = Episode(seed)
    rng = np.random.default_rng(seed)
    for _ in range(FREE_STEPS):
        record(env, episode, rng.uniform(-0.3, 0.3, 4).astype(np.float32))
    return episode


def played(env: SimulatedEnv, seed: int) -> Episode:
    """The expert with noise, to the episode's end."""
    env.reset(seed)
    episode = Episode(seed)
    expert = env.expert()
    rng = np.random.default_rng(seed)
    over = False
    while not over:
        over = record(env, episode, noisy(expert, rng))
    return episode


def noisy(expert: Expert, rng: np.random.Generator) -> np.ndarray:
    return np.clip(expert.action() + NOISE * rng.normal(size=4), -1, 1).astype(np.float32)


def keep_states(sim: Simulation, episode: Episode) -> None:
    """Fill in where each `mj_step` of the episode begins, by a replay with MetaWorld's own step."""
    model, data = sim.env.model, sim.env.data
    sim.reset(episode.seed)
    for action, end in zip(episode.actions, episode.ends, strict=True):
        state = np.empty(mujoco.mj_stateSize(model, STATE))
        before = np.empty_like(state)
        mujoco.mj_getState(model, data, before, STATE)
        sim.env.set_xyz_action(action[:3])
        data.ctrl[:] = action[3], -action[3]
        mujoco.mj_getState(model, data, state, STATE)
        episode.states.append(state)
        mujoco.mj_setState(model, data, before, STATE)
        sim.env.step(action)
        assert np.array_equal(data.qpos, end), "MetaWorld's own step went elsewhere"


def time_ours(env: SimulatedEnv, episode: Episode) -> float:
    """Seconds."""
    env.reset(episode.seed)
    total = 0.0
    for action in episode.actions:
        begin = time.thread_time()
        env.step(action)
        total += time.thread_time() - begin
    last = env.scene.sim.env.data.qpos
    assert np.array_equal(last, episode.ends[-1]), "the replay went elsewhere"
    return total


def time_own(sim: Simulation, episode: Episode) -> float:
    """Seconds of MetaWorld's own steps."""
    sim.reset(episode.seed)
    total = 0.0
    for action in episode.actions:
        begin = time.thread_time()
        sim.env.step(action)
        total += time.thread_time() - begin
    return total


def time_bare(sim: Simulation, episode: Episode) -> float:
    """Seconds of `mj_step` from the recorded states."""
    sim.reset(episode.seed)
    model, data = sim.env.model, sim.env.data
    total = 0.0
    for state, end in zip(episode.states, episode.ends, strict=True):
        mujoco.mj_setState(model, data, state, STATE)
        begin = time.thread_time()
        mujoco.mj_step(model, data, 5)
        total += time.thread_time() - begin
        assert np.array_equal(data.qpos, end), "bare physics went elsewhere"
    return total


def measure(task: str, rounds: int, episodes: int, *, hand_free: bool = False) -> dict:
    """One row: seconds of a control step, mean over the episodes of a round."""
    env = MetaWorldConfig(task=task, horizon=100_000 if hand_free else None).build()
    other = Simulation(task)
    play = free if hand_free else played
    recorded = [play(env, seed) for seed in range(episodes)]
    for episode in recorded:
        keep_states(other, episode)
    steps = sum(len(episode.actions) for episode in recorded)
    sides = {"ours": (time_ours, env), "peer": (time_bare, other), "own": (time_own, other)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(-1, rounds):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            timed, scene = sides[name]
            found = sum(timed(scene, episode) for episode in recorded) / steps
            seconds[name] += [found] if i >= 0 else []
    own = np.array(seconds["own"])
    share = np.median(np.array(seconds["peer"]) / own)
    return row(
        f"{task}, {'hand free' if hand_free else 'expert'}",
        seconds["ours"],
        seconds["peer"],
        scale=1e6,
        unit="us per control step",
        note=f"MetaWorld's own step: {1e6 * np.median(own):.0f} us, {share:.2f}",
    )


def check(task: str, steps: int) -> tuple[int, int]:
    """Steps with success, and changes of the flag; AssertionError where the two sides differ."""
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    ours, theirs = Simulation(task), Simulation(task)
    expert = make_expert(task, ours)
    rng = np.random.default_rng(0)
    flags: list[bool] = []
    seed = 0
    left = 0  # control steps of the present episode
    for n in range(steps):
        if left == 0:
            ours.reset(seed)
            theirs.reset(seed)
            lead = rng.integers(0, 15)  # of random actions, before the expert takes over
            left = TASKS[task].horizon
            solved = False
            seed += 1
        random = lead > 0 or (solved and rng.random() < 0.5)
        action = rng.uniform(-1, 1, 4).astype(np.float32) if random else noisy(expert, rng)
        flags.append(ours.step(action))
        *_, info = SawyerXYZEnv.step(theirs.env, action)
        success = bool(info["success"])
        assert flags[-1] is success, f"{task}, step {n}: MetaWorld says {success}"
        for name in ("qpos", "qvel"):
            here, there = (getattr(sim.env.data, name) for sim in (ours, theirs))
            assert np.array_equal(here, there), f"{task}, step {n}: {name} differs"
        left = min(left, AFTER) if flags[-1] and not solved else left
        solved |= flags[-1]
        lead -= 1
        left -= 1
    assert any(flags), f"{task}: no success in {steps} steps, so its flag was not checked"
    return sum(flags), int(np.diff(flags).sum())


def options() -> argparse.Namespace:
    made = parser()
    made.add_argument("--check", action="store_true", help="compare flags and states, time nothing")
    made.add_argument("--steps", type=int, default=10_000, help="of --check, per task")
    made.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which (all)")
    return made.parse_args()


if __name__ == "__main__":
    o = options()
    if o.check:
        for task in o.tasks:
            successes, changes = check(task, o.steps)
            found = f"{successes} of them successes, the flag changed {changes} times"
            print(f"{task:>20}: {o.steps} steps equal, {found}", flush=True)
    else:
        rounds, episodes = (1, 1) if o.quick else (7, EPISODES)
        rows = [measure("button-press", rounds, episodes, hand_free=True)]
        rows += [measure(task, rounds, episodes) for task in o.tasks]
        finish("metaworld_step", rows, o)
