"""The verb `compare-rewards`: one set of exploring rollouts under every reward."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from wamrl import reward_comparison
from wamrl.models.wam import WAM
from wamrl.runs.folder import Options, open_model, open_pool, open_run
from wamrl.runtime.log import bar, console


def compare_rewards(o: Options) -> None:
    """One set of exploring rollouts under every similarity of `rewards.similarities`."""
    if o.base is None:
        raise ValueError(
            "compare-rewards needs a model: give --base with a run folder or a checkpoint folder"
        )
    wam = open_model(o.config, o.base)
    with open_run(o) as run:
        _compare(o, wam, run)


def _compare(o: Options, wam: WAM, run: Path) -> None:
    cfg = o.config
    episodes = cfg.rewards.states * cfg.rewards.group
    with open_pool(cfg) as pool, bar("exploring", episodes) as advance:
        found = reward_comparison.study(
            cfg.rewards,
            wam,
            pool,
            cfg.flow,
            seed=cfg.seed,
            imagine_steps=cfg.train.reward.imagine_steps,
            on_done=advance,
        )
    title = f"Rewards on {cfg.env.build().spec.name}"
    reward_comparison.write(found, run, title)
    wins = int(found.success.sum())
    table = Table(title=f"{title}: {wins} of {len(found.success)} episodes succeeded")
    for column in reward_comparison.COLUMNS:
        table.add_column(column)
    for row in found.rows:
        table.add_row(*reward_comparison.cells(row))
    console.print(table)
    for name, reason in found.missing.items():
        console.print(f"not scored: {name}: {reason}", markup=False)
    console.print(f"rewards.md, .csv, .json, .png -> {run}", markup=False)
