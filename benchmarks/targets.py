"""What `python -m benchmarks` runs, what it should reach, and why it does not where it does not.
The only place for all three.

A target speaks of the row with its name: of the median ratio where two sides are compared, else of
the median itself. `explanation` is written by a human who has looked, and appears beside the number
only where it misses the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wamrl.envs.metaworld.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Target:
    at_least: float | None = None
    at_most: float | None = None
    explanation: str = ""  # of a miss

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )

    def __str__(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    title: str
    sides: str  # who is `ours`, who is `peer`
    targets: dict[str, Target] = field(default_factory=dict)  # row -> target


BENCHMARKS: dict[str, Benchmark] = {
    "start": Benchmark(
        title="a process to its first optimiser step",
        sides="Ours: `RankedAdamW`. Peer: `torch.optim.AdamW`, which imports torch's compiler.",
        targets={"a process to its first optimiser step": Target(at_least=1.3)},
    ),
    "pool": Benchmark(
        title="the price of running environments in other processes, per environment step",
        sides=(
            "Ours: `Pool`. Peers: gymnasium's AsyncVectorEnv (shared memory, no copy), "
            "Stable-Baselines3's SubprocVecEnv, one process per environment. No targets: the "
            "environment costs nothing here, and a robot simulator takes 300 to 20,000 us a step."
        ),
    ),
    "metaworld_step": Benchmark(
        title="a control step of MetaWorld, against bare physics",
        sides="Ours: `SimulatedEnv.step`. Peer: `mj_step(model, data, 5)` from the same states. "
        "Processor time.",
        targets={
            "button-press, hand free": Target(at_least=0.5),
            **{f"{task}, expert": Target(at_least=0.5) for task in TASKS},
        },
    ),
    "simulator": Benchmark(
        title="MetaWorld with its pictures through the pool",
        sides=(
            "Ours: `Pool`. Peer: the bare simulator and renderer in as many processes, which talk "
            "to nobody."
        ),
        targets={
            "MetaWorld, 8 environments, 2 processes": Target(
                at_least=0.9,
                explanation=(
                    "both cores simulate, and the pool's own process needs some of their time"
                ),
            ),
            "MetaWorld, 8 environments, 1 process": Target(at_least=0.9),
        },
    ),
    "pipeline": Benchmark(
        title="a rollout with the model, against the slower of its halves",
        sides=(
            "Ours: the whole rollout. Peer: the simulators alone or the model alone, whichever is "
            "slower."
        ),
        targets={"two splits, 1 simulator process, 1 thread": Target(at_least=0.8)},
    ),
    "render": Benchmark(
        title="drawing one picture of a simulated robot",
        sides="Ours: `FastRenderer`. Peer: `mujoco.Renderer`, same scene, camera and size.",
    ),
    "loader": Benchmark(
        title="making training batches from datasets on disk",
        sides="Ours: frames from files. Peer: the same frames held in memory.",
    ),
    "update": Benchmark(
        title="one epoch of the actor update on cached features",
        sides=(
            "Ours: features as the rollout has cached them. Peer: features recomputed from the "
            "observations."
        ),
        targets={
            "update epoch, nano, one noisy step": Target(
                at_least=5,
                explanation=(
                    "nano's world model costs no more than its actor's forward and backward pass"
                ),
            ),
            "update epoch, 768 x 12, one noisy step": Target(at_least=5),
        },
    ),
    "folded_steps": Benchmark(
        title=(
            "log-probability of a denoising chain with its K = 4 steps folded into the batch; step "
            "maths"
        ),
        sides=(
            "Ours: one batch. Peer: a loop over the steps (RLinf, ReinFlow); a look-up per sample "
            "(flow_grpo)."
        ),
        targets={
            **{f"log-probability, batch {b}": Target(at_least=1.5) for b in (1, 2, 4)},
            **{
                f"step maths, batch {b}, 10 steps": Target(
                    at_least=10,
                    explanation=(
                        "so little arithmetic is a handful of calls of torch on either side"
                    ),
                )
                for b in (32, 256)
            },
        },
    ),
    "world_training": Benchmark(
        title="arithmetic of a training step of the world model",
        sides=(
            "Ours: forward + backward + AdamW. Peer: the fastest square matrix product that was "
            "found on the device."
        ),
        targets={
            "training step, nano, CPU float32": Target(
                at_least=0.5,
                explanation=(
                    "half to three fifths of the time is matrix products, and those of width 128 "
                    "stay below the peak; the rest is elementwise work, of which a wider model "
                    "has less for its arithmetic"
                ),
            ),
            "training step, 768 x 12, CPU float32": Target(
                at_least=0.5,
                explanation="weights are used twice, so half of the additions are of gradients",
            ),
            "training step, 768 x 12, CUDA bfloat16": Target(
                at_least=0.4,
                explanation=(
                    "measured on two cores beside fifteen other runs; 1.04 B reached 0.40 there"
                ),
            ),
        },
    ),
    "compiled_loop": Benchmark(
        title="the denoising loop, compiled",
        sides="Ours: torch.compile of the whole loop. Peer: as it is, our default.",
    ),
    "threads": Benchmark(
        title=(
            "a training step beside busy simulators, by torch threads and OpenMP's way of waiting"
        ),
        sides="Ours: the setting in the first column. Peer: one thread.",
    ),
    "ranks": Benchmark(
        title="one online iteration, by ranks or by threads",
        sides=(
            "Ours: as many ranks as cores, one thread each. Peer: one process, as many threads as "
            "cores."
        ),
    ),
    "memory": Benchmark(
        title="300 cycles of rollout + reward + update: what grows, what is left",
        sides="Numbers, no comparison.",
        targets={
            "memory growth": Target(at_most=0.5),
            **{
                name: Target(at_most=0)
                for name in (
                    "file descriptors gained while cycling",
                    "file descriptors left",
                    "processes left",
                    "processes left after kill -9",
                    "shared-memory segments left after kill -9",
                )
            },
        },
    ),
    "profile_iteration": Benchmark(
        title="where the time of one online iteration goes",
        sides="Numbers, no comparison.",
    ),
    "before_after": Benchmark(
        title="one online iteration, before and after the work on speed",
        sides="Ours: this checkout. Peer: commit 27d16b8, the last one before it.",
    ),
    "serve": Benchmark(
        title="a policy over websockets",
        sides=(
            "Ours: openpi's client asks over loopback. Peer: `act` in the client's process. The "
            "quickstart's model, one thread; the way alone is a server that decides nothing."
        ),
        targets={"the way alone": Target(at_least=10.0)},  # a tenth of `act`
    ),
    "ray_pool": Benchmark(
        title="what a pool on a Ray cluster costs",
        sides=(
            "Ours: workers as Ray actors on two nodes. Peer: workers as processes. All on this "
            "machine."
        ),
    ),
}
