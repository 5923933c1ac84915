"""`Policy`: a saved model that plays one episode at a time, as `evaluate` would have it played."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wamrl.rollout.memory import Memory
from wamrl.rollout.schedule import episode_generator
from wamrl.serve.observation import ObservationReader
from wamrl.serve.saved import Saved
from wamrl.types import InitialState, Obs

_LONGEST = 1_000_000  # control steps between two observations
_ONE = (0,)  # the episode that is played, as `Memory` counts them


class Policy:
    """Observations in, actions out: float32, in the environment's units and within its bounds.

    What the model looks back to and remembers is kept here: call `reset` when an episode begins.
    It remembers that of each chunk the first actions were executed, as many as control steps went
    by. All noise comes from the run's seed and the episode's number, so an episode can be repeated.
    Several policies may share one `Saved`; a policy is for one thread.
    """

    def __init__(self, saved: Saved) -> None:
        self.saved = saved
        self.spec = saved.spec
        keys = getattr(saved.config.env, "state_keys", ())  # of GymConfig
        self._reader = ObservationReader(saved.spec, keys)
        self._low, self._high = saved.spec.bounds
        self._device = next(saved.wam.parameters()).device
        self._offsets = saved.wam.spec.history_offsets
        self._episode = -1
        self.reset()

    def reset(self, episode: int | None = None) -> None:
        """Begin an episode: forget what was seen.

        episode: with the noise of `evaluate` on that held-out state; None: the next one.
        """
        self._episode = self._episode + 1 if episode is None else episode
        start = InitialState(split="eval", index=self._episode)
        self._generator = episode_generator(self.saved.config.seed, start, 0)
        # (age, frames), as many as the oldest history offset may need
        self._past: deque[tuple[int, np.ndarray]] = deque(maxlen=1 - self._offsets[0])
        self._age = 0  # control steps so far
        self._since = 0  # of these since the last observation
        self._left: deque[np.ndarray] = deque()  # actions that `select_action` has not given yet
        self._last: tuple[Obs, Tensor] | None = None  # what the last decision was made from
        self._decided: tuple[Obs, Tensor, int] | None = None  # seen, chunk and age of it
        self._memory = Memory(self.saved.wam)

    def act(self, obs: Mapping[str, Any], executed: int | None = None) -> np.ndarray:
        """Decide a chunk from a new observation, float32 (N, A).

        executed: control steps since the last observation; None: all of the chunk that was decided
        then. ValueError of one sentence where the observation does not fit.
        """
        frames, state, text = self._reader.read(obs)
        if executed is not None and not 0 <= executed <= _LONGEST:
            raise ValueError(f"executed={executed} is not possible: give control steps, 0 or more")
        self._observe(frames, self._since if executed is None else executed)
        chunk = self._decide(state, text)
        self._left.clear()
        self._since = len(chunk)
        return chunk

    def select_action(self, obs: Mapping[str, Any]) -> np.ndarray:
        """The action for this control step, float32 (A,); one call per step.

        A new chunk is decided as soon as the last one is used up.
        """
        frames, state, text = self._reader.read(obs)
        self._observe(frames, self._since)
        if not self._left:
            self._left.extend(self._decide(state, text))
        self._since = 1
        return self._left.popleft()

    def imagine(self, obs: Mapping[str, Any] | None = None, steps: int | None = None) -> np.ndarray:
        """The frames that the model imagines, uint8 (F, V, H, W, 3), at its `frame_offsets`.

        obs: as if it were seen now and `act` came next; None: behind the last decision. steps:
        denoising steps; None: as they are evaluated. ValueError if there is neither.
        """
        steps = self.saved.config.eval.imagine_steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps={steps} is not possible: give 1 or more")
        if obs is not None:
            frames, state, text = self._reader.read(obs)
            age = self._age + self._since
            window = [*self._past, (age, frames)]
            generator = torch.Generator()
            generator.set_state(self._generator.get_state())
            seen = (self._obs(window, state, text, self._remembered(age)), _next_seed(generator))
        elif self._last is not None:
            seen = self._last
        else:
            raise ValueError("nothing was decided in this episode yet: give an observation")
        obs, seeds = seen
        imagined = self.saved.wam.imagine(obs.to(self._device), seeds, steps)[0]
        return (imagined.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def _observe(self, frames: np.ndarray, steps: int) -> None:
        """These frames are seen so many control steps after the last ones."""
        self._age += steps
        self._past.append((self._age, frames))

    def _decide(self, state: np.ndarray, text: str) -> np.ndarray:
        """A chunk, float32 (N, A), from what is in the past."""
        self._memory = self._remembered(self._age)
        obs = self._obs(self._past, state, text, self._memory)
        seeds = _next_seed(self._generator)
        saved = self.saved
        seen = obs.to(self._device)
        of_model = self._memory.state(_ONE)
        plan = saved.wam.act(seen, seeds, saved.flow, [self._generator], saved.sampler, of_model)
        self._last = (obs, seeds)
        chunk = np.clip(plan.actions[0].float().cpu().numpy(), self._low, self._high)
        self._decided = (obs, torch.tensor(chunk[None]), self._age)
        return chunk

    def _remembered(self, age: int) -> Memory:
        """What the model remembers of this episode when it decides at that age."""
        memory = self._memory.copy()
        if self._decided is not None:
            obs, chunk, before = self._decided
            executed = torch.tensor([min(age - before, chunk.shape[1])])
            memory.observe(_ONE, obs, chunk, executed)
        return memory

    def _obs(
        self, past: Sequence[tuple[int, np.ndarray]], state: np.ndarray, text: str, memory: Memory
    ) -> Obs:
        """As a simulator's worker makes it: of older frames, the latest that were there by then."""
        ages = [age for age, _ in past]
        window = []
        for offset in self._offsets:
            latest = max(0, bisect_right(ages, ages[-1] + offset) - 1)
            window.append(past[latest][1])
        obs = Obs(
            frames=torch.from_numpy(np.stack(window)[None]),
            proprio=torch.from_numpy(state[None]),
            text=(text,),
        )
        return replace(obs, past=memory.past(_ONE, obs))


def _next_seed(generator: torch.Generator) -> Tensor:
    """Of the video noise, int64 (1,); drawn as `collect` draws it."""
    return torch.randint(2**62, (), generator=generator)[None]
