"""What `wamrl bench` runs, what it should reach, and why it does not where it does not. The only place for all three.

A target speaks of the row with its name: of the median ratio where two sides are compared, else of the median itself.
`explanation` is written by a human who has looked, and appears beside the number only where it misses the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Target:
    at_least: float | None = None
    at_most: float | None = None
    explanation: str = ""  # of a miss

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    title: str
    sides: str  # who is `ours`, who is `peer`
    targets: dict[str, Target] = field(default_factory=dict)  # row -> target


BENCHMARKS: dict[str, Benchmark] = {
    "folded_steps": Benchmark(
        title="log-probability of a denoising chain with its K = 4 steps folded into the batch; step maths",
        sides="Ours: one batch. Peer: a loop over the steps (RLinf, ReinFlow); a look-up per sample (flow_grpo).",
        targets={
            **{f"log-probability, batch {b}": Target(at_least=1.5) for b in (1, 2, 4)},
            **{f"step maths, batch {b}, 10 steps": Target(at_least=10) for b in (32, 256)},
        },
    ),
    "update": Benchmark(
        title="one epoch of the actor update on cached features",
        sides="Ours: features as the rollout has cached them. Peer: features recomputed from the observations.",
        targets={
            "update epoch, nano, one noisy step": Target(at_least=5),
            "update epoch, 768 x 12, one noisy step": Target(at_least=5),
        },
    ),
}
