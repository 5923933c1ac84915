"""`check_env` names the fault of environments that break the contract."""

from dataclasses import replace

import numpy as np
import pytest

from wamrl.envs.base import StepResult
from wamrl.envs.check import check_env
from wamrl.envs.point import PointConfig, PointScene
from wamrl.envs.simulated import SimulatedEnv


class Broken(SimulatedEnv):
    """A sound environment to be broken in one place."""

    def __init__(self):
        super().__init__(PointScene(PointConfig()))


class WrongFrameShape(Broken):
    def render(self):
        return super().render()[0]


class FloatFrames(Broken):
    def render(self):
        return super().render() / np.float32(255)


class BlackFrames(Broken):
    def render(self):
        return super().render() * 0


class OneColour(Broken):
    def render(self):
        return super().render() * 0 + np.uint8(7)


class DoubleProprio(Broken):
    def proprio(self):
        return super().proprio().astype(np.float64)


class LongProprio(Broken):
    def proprio(self):
        return np.concatenate([super().proprio(), np.zeros(1, np.float32)])


class NotANumber(Broken):
    def proprio(self):
        return super().proprio() * np.float32(np.nan)


class RandomReset(Broken):
    def reset(self, seed):
        super().reset(seed)
        self.scene.position += np.random.uniform(-0.1, 0.1, 2)


class SameStart(Broken):
    def reset(self, seed):
        super().reset(0)


class Remembers(Broken):
    wear = 1.0

    def step(self, action):
        self.wear *= 0.99
        return super().step(np.clip(action, -1, 1) * self.wear)


class LookingMoves(Broken):
    def proprio(self):
        self.scene.position = self.scene.position * 0.99
        return super().proprio()


class SharedArray(Broken):
    def proprio(self):
        self._state = getattr(self, "_state", np.zeros(4, np.float32))
        self._state[:] = super().proprio()
        return self._state


class Unclipped(Broken):
    def step(self, action):
        self.scene.velocity = self.scene.velocity + 0.001 * np.asarray(action)
        return super().step(action)


class WritesAction(Broken):
    def step(self, action):
        action *= 0.5
        return super().step(action)


class NoClock(Broken):
    def step(self, action):
        self._steps = 0
        return super().step(action)


class EarlyClock(Broken):
    def step(self, action):
        result = super().step(action)
        return replace(result, truncated=self._steps >= 5 and not result.terminated)


class BothEnds(Broken):
    def step(self, action):
        result = super().step(action)
        end = self._steps >= self.spec.horizon
        return replace(result, terminated=end, truncated=end)


class NumpyFlags(Broken):
    def step(self, action):
        return replace(super().step(action), success=np.False_)


class GymTuple(Broken):
    def step(self, action):
        super().step(action)
        return self.render(), 0.0, False, False, {}


class TooManyStages(Broken):
    def step(self, action):
        return replace(super().step(action), stages=2)


class EarlySuccess(Broken):
    def step(self, action):
        super().step(action)
        none = (0,) * len(self.spec.counters)
        return StepResult(success=True, terminated=True, truncated=False, stages=0, counters=none)


class AttemptsVanish(Broken):
    def step(self, action):
        result = super().step(action)
        return replace(result, counters=(int(self._steps == 3), 0))


class AttemptsOfEarlierEpisodes(Broken):
    count = 2

    def step(self, action):
        return replace(super().step(action), counters=(self.count, 0))


class AttemptsGoOn(Broken):
    count = 0

    def step(self, action):
        result = super().step(action)
        self.count += int(self._steps == 4)
        return replace(result, counters=(int(self.count > 1), 0))


class RetryWithoutAttempt(Broken):
    def step(self, action):
        return replace(super().step(action), counters=(0, int(self._steps > 2)))


class HalfAnAttempt(Broken):
    def step(self, action):
        return replace(super().step(action), counters=(0.5, 0))


class ForgottenCounter(Broken):
    def step(self, action):
        return replace(super().step(action), counters=(0,))


class NamedTwice(Broken):
    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, counters=("bumps", "bumps"))


class NoHorizon(Broken):
    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, horizon=0)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (WrongFrameShape, "render.. returned shape"),
        (FloatFrames, "uint8"),
        (BlackFrames, "is black"),
        (OneColour, "one colour only"),
        (DoubleProprio, "float32"),
        (LongProprio, "spec.proprio_dim"),
        (NotANumber, "NaN"),
        (RandomReset, "not reproducible"),
        (SameStart, "ignores its seed"),
        (Remembers, "survives reset"),
        (LookingMoves, "looking twice"),
        (SharedArray, "must return copies"),
        (Unclipped, "not clipped"),
        (WritesAction, "changes the action array"),
        (NoClock, "truncated never became True"),
        (EarlyClock, "truncated after 5"),
        (BothEnds, "came together"),
        (NumpyFlags, "Python bools"),
        (GymTuple, "StepResult"),
        (TooManyStages, "stages=2"),
        (EarlySuccess, "before all stages"),
        (AttemptsVanish, "attempts went back from 1 to 0"),
        (AttemptsOfEarlierEpisodes, "attempts rose by 2"),
        (AttemptsGoOn, "survives reset"),
        (RetryWithoutAttempt, "retries rose without attempts"),
        (HalfAnAttempt, "must be ints"),
        (ForgottenCounter, "one count for each"),
        (NamedTwice, "names each counter once"),
        (NoHorizon, "spec.horizon"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_names_the_fault(broken, fault):
    with pytest.raises(ValueError, match=fault) as caught:
        check_env(broken())
    assert str(caught.value).startswith("this environment breaks the contract: ")


def test_a_useless_expert_is_noticed():
    class Lazy(Broken):
        def expert(self):
            expert = super().expert()
            expert.action = lambda: np.zeros(2, np.float32)
            return expert

    check_env(Lazy())
    with pytest.raises(ValueError, match="does not solve"):
        check_env(Lazy(), expert=True)
