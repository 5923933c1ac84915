"""Which half of a jointly trained model carries its gain, the actor or the world model?

    wamrl study metaworld --out OUT --only 'hammer/wamrl_paper/*' --keep-models
    python -m benchmarks.halves OUT hammer wamrl_paper 0 [SEED ...] [--study NAME] [--episodes 200]

Each half of the trained model is put beside the other half of the base that it began from. All four
models play the same held-out initial states under the same noise, by the sampler that the trained
model is deployed with. Where the trained actor does as well on the base's features, what the world
model learned online is not what it acts by; a base's actor that does worse on the new features
shows that they moved.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.results_table import interval
from wamrl.config import Config
from wamrl.evaluate import evaluate
from wamrl.models.wam import WAM
from wamrl.recipes.find import build
from wamrl.runs.folder import open_model
from wamrl.stats.nested import hierarchical
from wamrl.stats.paired import wilson
from wamrl.study import Cell, StudyConfig

# (whose world model, whose actor)
MODELS = (("base", "base"), ("base", "trained"), ("trained", "base"), ("trained", "trained"))
QUESTIONS = (
    ("the actor, on the base's world model", ("base", "trained"), ("base", "base")),
    ("the world model, under the base's actor", ("trained", "base"), ("base", "base")),
    ("the world model, under the trained actor", ("trained", "trained"), ("base", "trained")),
)

Outcomes = dict[tuple[str, str], np.ndarray]  # of each model, success on each state, bool (E,)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder of a study that kept its models")
    parser.add_argument("task")
    parser.add_argument("arm")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument(
        "--study", default="metaworld", help="as in `wamrl list`, or module:function"
    )
    parser.add_argument("--episodes", type=int, default=0, help="0: as the study says")
    return parser.parse_args()


def halves(cfg: Config, base: Path, trained: Path) -> Iterator[tuple[tuple[str, str], WAM]]:
    """The four models, each with the sampler of the trained one."""
    for world, actor in MODELS:
        found = {"base": open_model(cfg, base), "trained": open_model(cfg, trained)}
        wam = found[world]
        wam.actor = found[actor].actor
        wam.sampler = found["trained"].sampler
        yield (world, actor), wam


def play(cfg: Config, base: Path, trained: Path) -> Outcomes:
    """Success of the four models on the same states."""
    flow = cfg.flow.at(1.0)
    found: Outcomes = {}
    with cfg.build_pool() as pool:
        for name, wam in halves(cfg, base, trained):
            options = {"seed": cfg.seed, "sampler": wam.sampler}
            won = evaluate(wam, pool, cfg.eval, flow, **options).success.numpy()
            low, high = wilson(int(won.sum()), len(won))
            print(
                f"seed {cfg.seed}, {wam.sampler}: world model {name[0]}, actor {name[1]}: "
                f"{int(won.sum())}/{len(won)} = {won.mean():.1%} [{low:.1%}, {high:.1%}]",
                flush=True,
            )
            found[name] = won
    return found


def answers(seeds: list[Outcomes]) -> Iterator[str]:
    """One line per question: points, interval (hierarchical: seeds, then states), seed by seed."""
    for question, mine, other in QUESTIONS:
        apart = [one[mine].astype(float) - one[other].astype(float) for one in seeds]
        found = hierarchical([apart], bounds=(-1, 1))
        points = interval(found.value, found.low, found.high)
        by_seed = ", ".join(f"{100 * d.mean():+.1f}" for d in apart)
        yield f"{question}: {points}, n = {found.episodes} ({by_seed})"


def asked(o: argparse.Namespace) -> Iterator[tuple[Config, Path, Path]]:
    """Configuration, base and trained model of each seed; SystemExit if a model is missing."""
    study = build(o.study, StudyConfig)
    for seed in o.seeds:
        cell = Cell(o.task, o.arm, seed)
        cfg = study.config(cell)
        if o.episodes:
            cfg = replace(cfg, eval=replace(cfg.eval, episodes=o.episodes))
        base = cell.base.folder(o.out) / "checkpoints" / "base"
        trained = cell.folder(o.out) / "checkpoints" / "final"
        for path in (base, trained):
            if not path.is_dir():
                raise SystemExit(f"{path} is missing: run the cell with --keep-models")
        yield cfg, base, trained


def main() -> None:
    try:
        cells = list(asked(arguments()))  # all of them, before any is played
    except ValueError as error:
        raise SystemExit(str(error)) from None
    torch.set_num_threads(cells[0][0].threads)
    for line in answers([play(*cell) for cell in cells]):
        print(line)


if __name__ == "__main__":
    main()
