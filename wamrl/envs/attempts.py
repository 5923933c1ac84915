"""Counting attempts: how often the robot went at a sub-goal,
and how often it came back after it had failed.

A simulation says at every control step whether the robot is *engaged* with its sub-goal (holds the
object, touches the button, is in the goal's circle), read off the simulator's state. From that:
    an attempt begins  when the robot is engaged after `AWAY_STEPS` or more control steps of not
                       being so
    an attempt fails   when the robot has not been engaged for `AWAY_STEPS` control steps
                       and the sub-goal is not solved
    a retry            is an attempt that follows a failed one at the same sub-goal
The steps before the reset do not count as away: what is touched in the initial state is not an
attempt. A sub-goal that is solved counts as attempted, whatever solved it.
"""

from __future__ import annotations

from collections.abc import Sequence

COUNTERS = ("attempts", "retries")  # as in `EnvSpec.counters`
AWAY_STEPS = 8  # control steps; shorter gaps are bounces of one contact


class AttemptCounter:
    """The counts of one episode, a pure function of what `update` was told:
    make a new one at every reset.

    `carries`: what the robot is engaged with stays with it when the sub-goal is solved (an object
    in the hand: this hold is also the first attempt at the next sub-goal); otherwise the next
    sub-goal is somewhere else and nobody is at it yet.

    Example:
        counter = AttemptCounter(carries=True)
        counter.update(sim.held("obj"), solved=False)
    """

    def __init__(self, *, carries: bool) -> None:
        self.counters = (0, 0)  # attempts and retries so far, as in `StepResult.counters`
        self._carries = carries
        self._here = 0  # attempts at the present sub-goal
        self._away = 0  # control steps since the robot was engaged

    def update(self, engaged: bool, solved: bool) -> None:
        """One control step: was the robot at its sub-goal, and was it solved in this step?"""
        if engaged and self._away >= AWAY_STEPS:
            self._begin()
        self._away = 0 if engaged else self._away + 1
        if solved:
            if self._here == 0:
                self._begin()
            self._here = int(self._carries and engaged)
            # as at the reset: what the hand happens to touch of the next sub-goal is not an attempt
            self._away = 0

    def _begin(self) -> None:
        attempts, retries = self.counters
        self.counters = (attempts + 1, retries + int(self._here > 0))
        self._here += 1


def impossible(before: Sequence[int], now: Sequence[int]) -> str:
    """What is wrong with two counts that stood at `before` one control step ago;
    empty if nothing is.
    """
    new = now[0] - before[0]
    again = now[1] - before[1]
    if new > 1:
        return (
            f"attempts rose by {new} in one control step "
            "(in an episode's first: it must start from 0)"
        )
    if again > new:
        return "retries rose without attempts: every retry is an attempt as well"
    return ""
