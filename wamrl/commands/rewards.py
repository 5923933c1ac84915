"""The verb `compare-rewards`: one set of exploring rollouts under every reward."""

from __future__ import annotations

from rich.table import Table

from wamrl import reward_comparison
from wamrl.runs.folder import open_model, open_pool, open_run, require_playable
from wamrl.runs.options import Options
from wamrl.runtime.log import bar, console


def compare_rewards(o: Options) -> None:
    """One set of exploring rollouts under every similarity of `rewards.similarities`."""
    cfg = o.config
    require_playable(cfg)
    wam = open_model(cfg, o.base)
    episodes = cfg.rewards.states * cfg.rewards.group
    with open_run(o, None) as run:
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
