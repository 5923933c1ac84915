"""Where a MetaWorld policy wins: success of the evaluation states by where their goal stands.

    MUJOCO_GL=egl python -m benchmarks.where_it_wins RUN [RUN ...] [--out where_it_wins.png]

One column per finished run of `wamrl train` or `wamrl quickstart`. Above, the goal of every
evaluation state, seen from over the table, and what became of the state before and after training.
Below, success by bands of x, with Wilson 95 % intervals. The bands are printed as a table too. A
success rate says how many states have changed, this says which.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl import report
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.report.style import BLUE, GREEN, GREY, ORANGE, PER_CENT, RED, saved_figure
from wamrl.stats.paired import wilson
from wamrl.types import InitialState

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDS = 10
ARMS = {"before": GREY, "after": BLUE}
# (won before, won after): what the legend says, colour
CHANGES = {
    (True, True): ("won before and after", BLUE),
    (False, True): ("won after only", GREEN),
    (True, False): ("won before only", RED),
    (False, False): ("lost both times", ORANGE),
}


@dataclass(frozen=True)
class Outcomes:
    """The E evaluation states of a run."""

    title: str
    goal: np.ndarray  # float64 (E, 2): x and y of the first goal, cm
    won: dict[str, np.ndarray]  # arm -> bool (E,)

    @classmethod
    def load(cls, folder: Path) -> Outcomes:
        """ValueError unless `folder` is a finished run, with a before and after, on MetaWorld."""
        for name in ("summary.json", "config.json"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}: give run folders that have finished")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        arms = report.read_summary(folder / "summary.json")["arms"]
        if not config["env"]["class"].endswith(":MetaWorldConfig"):
            raise ValueError(f"{folder} is not a run on MetaWorld, whose goals this knows")
        if not all("success" in arms.get(arm, {}) for arm in ARMS):
            raise ValueError(f"{folder} compares no before and after: give runs of `wamrl train`")
        found = {a: dict(zip(arms[a]["starts"], arms[a]["success"], strict=True)) for a in ARMS}
        states = sorted(found["before"].keys() & found["after"].keys())
        env = MetaWorldConfig(task=config["env"]["task"], stages=config["env"]["stages"])
        rates = ", ".join(f"{arms[arm]['rate']:.1%} {arm}" for arm in ARMS)
        return cls(
            title=f"{config['name']} ({env.task}), seed {config['seed']}: {rates}",
            goal=goals(env, states),
            won={arm: np.array([found[arm][i] for i in states], bool) for arm in ARMS},
        )

    @property
    def edges(self) -> np.ndarray:
        """Of the bands, equally wide, from the lowest x to the highest, float64 (BANDS + 1,)."""
        x = self.goal[:, 0]
        return np.linspace(x.min(), x.max(), BANDS + 1)

    @property
    def band(self) -> np.ndarray:
        """int64 (E,): which one the goal of a state lies in."""
        return np.digitize(self.goal[:, 0], self.edges[1:-1])

    def counts(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Won states and all states of each band, int64 (BANDS,) each."""
        won = np.bincount(self.band[self.won[arm]], minlength=BANDS)
        return won, np.bincount(self.band, minlength=BANDS)


def goals(env: MetaWorldConfig, states: list[int]) -> np.ndarray:
    """x and y of the first goal of these evaluation states, float64 (E, 2), cm."""
    built = env.build()
    found = []
    for index in states:
        built.reset(InitialState(split="eval", index=index).seed)
        found.append(100 * built.scene.sim.goal()[:2])
    built.close()
    return np.array(found)


def draw(path: Path, runs: list[Outcomes]) -> None:
    """The picture that the head of this file describes."""
    with saved_figure(path, max(6, 4.6 * len(runs)), 6.4) as figure:
        grid = figure.subplots(2, len(runs), sharex="col", sharey="row", squeeze=False)
        for outcomes, (above, below) in zip(runs, grid.T, strict=True):
            draw_map(above, outcomes)
            draw_bands(below, outcomes)
        grid[0, 0].set_ylabel("goal's y, cm")
        grid[1, 0].set_ylabel("success, %")
        lines = [axes.get_legend_handles_labels() for axes in grid[:, 0]]
        handles, labels = (sum(both, []) for both in zip(*lines, strict=True))
        figure.legend(handles, labels, loc="outside lower center", ncols=3)


def draw_map(axes: Axes, outcomes: Outcomes) -> None:
    """Every goal from above, by what became of its state."""
    before, after = (outcomes.won[arm] for arm in ARMS)
    for (first, then), (label, colour) in CHANGES.items():
        x, y = outcomes.goal[(before == first) & (after == then)].T
        axes.scatter(x, y, s=14, color=colour, label=label, linewidths=0)
    axes.set_title(outcomes.title.replace(": ", "\n"))


def draw_bands(axes: Axes, outcomes: Outcomes) -> None:
    """Success of each band before and after, at the band's middle."""
    edges = outcomes.edges
    middle = (edges[1:] + edges[:-1]) / 2
    for arm, colour in ARMS.items():
        won, total = outcomes.counts(arm)
        some = total > 0
        rate = won[some] / total[some]
        ends = np.array([wilson(*pair) for pair in zip(won[some], total[some], strict=True)]).T
        reach = np.abs(ends - rate) * 100
        look = {"color": colour, "marker": "o", "capsize": 2, "elinewidth": 0.8}
        axes.errorbar(middle[some], 100 * rate, reach, **look, label=f"{arm}, Wilson 95 %")
    axes.set(xlabel="goal's x, cm", ylim=PER_CENT)


def table(outcomes: Outcomes) -> str:
    """Markdown, a row per band."""
    lines = [outcomes.title, "", "| goal's x, cm | states | before | after |", "|---|---|---|---|"]
    edges = outcomes.edges
    won, total = zip(*(outcomes.counts(arm) for arm in ARMS), strict=True)
    for i in range(BANDS):
        rates = (f"{w[i] / t[i]:.0%}" if t[i] else "-" for w, t in zip(won, total, strict=True))
        place = f"{edges[i]:.1f} to {edges[i + 1]:.1f}"
        lines.append(f"| {place} | {total[0][i]} | {' | '.join(rates)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=Path("where_it_wins.png"))
    o = parser.parse_args()
    try:
        runs = [Outcomes.load(folder) for folder in o.runs]
    except ValueError as error:
        sys.exit(f"where_it_wins: {error}")
    draw(o.out, runs)
    print("\n\n".join(map(table, runs)))
    print(f"\n{o.out}")


if __name__ == "__main__":
    main()
