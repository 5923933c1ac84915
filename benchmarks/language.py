"""Does a model act by the instruction? The same states once told rightly, once told another task.

    wamrl sft two-goals --out runs
    python -m benchmarks.language two-goals runs/two-goals-TIME [--episodes 200] [--out FILE]

For a suite whose tasks share their scenes. Each episode is played twice from the same state under
the same noise: with its own instruction, and with that of the next task. A model that does not read
does as well both times; one that reads goes where it is told, so success is lost.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from wamrl.evaluate import deploy, evaluate
from wamrl.recipes.find import find_recipe
from wamrl.runs.folder import open_model, open_pool
from wamrl.runtime.files import write_text
from wamrl.stats.paired import paired_difference, wilson


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("base", type=Path, help="a run folder or a checkpoint")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    cfg = replace(find_recipe(o.recipe)(), seed=o.seed)
    cfg = replace(cfg, eval=replace(cfg.eval, episodes=o.episodes))
    wam = open_model(cfg, o.base)
    flow = cfg.flow.at(1.0)
    with open_pool(cfg) as pool:
        if len(pool.spec.tasks) < 2:
            raise SystemExit(f"{o.recipe} has one task: name a suite, such as two-goals")
        deploy(wam, pool, cfg.eval, flow, seed=cfg.seed)
        options = {"seed": cfg.seed, "sampler": wam.sampler}
        right = evaluate(wam, pool, cfg.eval, flow, **options)
        told = pool.spec.instructions
        pool.spec = replace(pool.spec, instructions=(*told[1:], told[0]))
        wrong = evaluate(wam, pool, cfg.eval, flow, **options)
    pair = paired_difference(right.success.numpy(), wrong.success.numpy())
    rows = {"own instruction": right, "another task's": wrong}
    print(f"{o.recipe}, seed {o.seed}, sampler {wam.sampler!r}, {o.episodes} states")
    for name, rollout in rows.items():
        success = np.asarray(rollout.success)
        low, high = wilson(int(success.sum()), len(success))
        print(f"{name}: {success.mean():.1%} [{low:.1%}, {high:.1%}]")
    print(f"cost of the wrong words: {pair.difference:+.1%} [{pair.low:+.1%}, {pair.high:+.1%}]")
    if o.out:
        found = asdict(pair) | {"machine": describe()}
        write_text(o.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
