"""A fault of an environment is named where it happens: environment, seed, control step."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.support import pools
from tests.support.faulty import WalkConfig, WalkEnv
from tests.support.odd_gym import slide
from wamrl.data.record import Recorder
from wamrl.envs.base import StepResult
from wamrl.envs.checked import CheckedEnv
from wamrl.pool.pool import PoolConfig
from wamrl.types import InitialState


class Broken(WalkEnv):
    """From control step 4 on it does `fault`."""

    def __init__(self, fault: str) -> None:
        super().__init__(WalkConfig(horizon=6))
        self.fault = fault

    @property
    def bad(self) -> bool:
        return self._steps >= 4

    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        changes = {
            "success": {"success": 0.5},
            "flags": {"terminated": None},
            "stages": {"stages": 2},
            "negative": {"stages": -1},
            "counters": {"counters": (1,)},
            "back": {"counters": (0, 0)},
            "both": {"terminated": True, "truncated": True},
        }
        if self.fault == "late":
            return replace(result, truncated=False)
        if self.bad and self.fault == "tuple":
            return 0.0, False
        if self.bad and self.fault == "mute":
            raise NotImplementedError
        return replace(result, **changes.get(self.fault, {})) if self.bad else result

    def proprio(self) -> np.ndarray:
        state = super().proprio()
        if self.bad and self.fault == "nan":
            state[2] = np.nan
        return state.astype(np.float64) if self.bad and self.fault == "double" else state

    def render(self) -> np.ndarray:
        frame = super().render()
        return frame[0] if self.bad and self.fault == "small" else frame


@dataclass(frozen=True, kw_only=True)
class BrokenConfig(WalkConfig):
    def build(self) -> Broken:
        return Broken(self.fault)


FAULTS = {
    "nan": r"proprio\(\) holds NaN or infinity in dimension 2: the simulation has diverged",
    "success": "success is 0.5: it must be True or False",
    "flags": "terminated is None",
    "stages": r"stages is 2: it must lie in 0\.\.1",
    "negative": "stages is -1",
    "counters": r"counters of step\(\) are \(1,\), spec.counters names",
    "back": "attempts went back from 2 to 0",
    "both": "terminated and truncated came together",
    "tuple": "step\\(\\) returned tuple",
    "double": "proprio\\(\\): found float64",
    "small": r"render\(\): found uint8 \(6, 5, 3\)",
    "mute": "NotImplementedError: \\(it says nothing more\\)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_environment_seed_and_step(fault):
    env = CheckedEnv(Broken(fault))
    with pytest.raises((ValueError, RuntimeError), match=f"^walk, seed 7, .*4: {FAULTS[fault]}"):
        env.reset(7)
        for _ in range(6):
            env.step(np.zeros(3, np.float32))
            env.render()
            env.proprio()


@pytest.mark.parametrize("fault", ["nan", "success"])
def test_so_does_a_pool_and_a_recording(fault):
    env = BrokenConfig(fault=fault)
    start = InitialState(split="train", index=5)
    where = f"walk, seed {start.seed}, control step 4: "
    with PoolConfig(n_envs=1, n_workers=1).build(env, n_exec=4, frame_offsets=(4,)) as pool:
        pools.begin(pool, [start])
        with pytest.raises(ValueError, match=where + FAULTS[fault]):
            pools.step(pool, np.zeros((1, 4, 3), np.float32))
    recorder = Recorder()
    recorder.build(env)
    with pytest.raises(ValueError, match=where + FAULTS[fault]):
        recorder.play(start.seed, np.zeros((6, 3), np.float32))


def test_an_episode_that_ignores_its_horizon_is_ended_and_said_once(capfd):
    env = CheckedEnv(Broken("late"))
    for _ in range(2):
        env.reset(3)
        ends = [env.step(np.zeros(3, np.float32)).truncated for _ in range(6)]
        assert ends == [False] * 5 + [True]
    said = capfd.readouterr().err
    assert (
        said.count("goes on after spec.horizon=6") == 1 and "walk, seed 3, control step 6" in said
    )


def test_the_nan_of_a_gymnasium_state_is_its_own(capfd):
    recorder = Recorder()
    recorder.build(slide("nan_state"))
    with pytest.raises(ValueError, match="Slide-v0, seed 9, control step 4: proprio.*dimension 1"):
        recorder.play(9, np.zeros((8, 2), np.float32))


def test_what_the_simulator_raises_is_named():
    recorder = Recorder()
    recorder.build(slide("raises"))
    with pytest.raises(RuntimeError, match="seed 9, control step 5: RuntimeError: huge value in Q"):
        recorder.play(9, np.zeros((8, 2), np.float32))
