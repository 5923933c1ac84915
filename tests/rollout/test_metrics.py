"""docs/metrics.md names every logged number, and nothing that is not logged."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import tiny
from wamrl.evaluate import measure
from wamrl.online.state import TrainingState
from wamrl.report import write_summary
from wamrl.report.results import paired
from wamrl.rollout.metrics import rollout_metrics
from wamrl.runs.demonstrations import Data
from wamrl.runs.phases import base_model
from wamrl.runtime.log import Logger, new_run, read_metrics
from wamrl.train import improve, iterate

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.+?) \| (.+) \|$", TEXT, re.MULTILINE)
KEYS = {key for cell, _ in ROWS for key in re.findall(r"`([^`]+)`", cell) if "/" in key}
FIELDS = {key for cell, _ in ROWS for key in re.findall(r"`([^`]+)`", cell) if "/" not in key}


def pattern(key: str) -> re.Pattern:
    """The keys that a row of the table stands for."""
    text = re.escape(key).replace("<offset>", r"\d+")
    for name in ("<tap>", "<name>"):
        text = text.replace(name, r"[^/]+")
    return re.compile(text + "$")


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    """The keys of a fine-tuning and of online iterations with everything switched on."""
    run = new_run(tmp_path_factory.mktemp("runs"), "metrics", tiny.CONFIG)
    data = Data(demos=tiny.demos(), heldout=tiny.demos().at(tiny.torch.arange(8)))
    base_model(tiny.CONFIG, data, run)
    with Logger(run) as logger:
        with tiny.build_pool() as pool:
            state = TrainingState(tiny.CONFIG, tiny.lively(), tiny.demos(), 40)
            for _ in range(2):
                logger.log(state.iteration, iterate(state, pool)[0])
            cfg = replace(tiny.CONFIG, eval=replace(tiny.CONFIG.eval, every=1, during=2, choose=2))
            cfg = tiny.train_config(
                cfg, learner=replace(cfg.train.learner, old_log_prob="recomputed")
            )
            state = TrainingState(cfg, tiny.lively(), tiny.demos(), 40)
            before = {"successes": 1, "episodes": 2, "sampler": "ode", "rates": {"ode": 0.5}}
            before["tasks"] = {"green": {"rate": 1.0}, "red": {"rate": 0.0}}
            improve(state, pool, run, logger, before=before)
            rollout = tiny.explore(tiny.lively(), pool, 4)
            again = replace(
                rollout,
                counters=tiny.torch.tensor([[1, 0], [2, 1], [1, 0], [4, 2]]),
                tasks=("green", "red"),
                turns=(0, 1),
            )
            logger.log(
                state.iteration, rollout_metrics(again, tiny.torch.ones(4, dtype=tiny.torch.bool))
            )
    return set().union(*read_metrics(run)) - {"step", "seconds"}


def test_every_logged_number_is_explained(logged):
    unknown = {key for key in logged if not any(pattern(k).match(key) for k in KEYS)}
    assert not unknown, f"add to docs/metrics.md: {sorted(unknown)}"


def test_every_explained_number_is_logged(logged):
    stale = {key for key in KEYS if not any(pattern(key).match(k) for k in logged)}
    assert not stale, f"remove from docs/metrics.md: {sorted(stale)}"


def test_every_field_of_the_summary_is_explained(tmp_path):
    cfg = replace(tiny.CONFIG, eval=replace(tiny.CONFIG.eval, episodes=3))
    heldout = tiny.demos().at(tiny.torch.arange(8))
    deployed = tiny.lively()
    deployed.sampler = "ode"
    with cfg.build_pool() as pool:
        options = {"seed": 0, "heldout": heldout, "title": "model"}
        result, _ = measure(deployed, pool, cfg.eval, cfg.flow, **options)
    result = replace(result, by_task={"green": tiny.torch.tensor([True, False, True])})
    write_summary(
        tmp_path / "summary.json",
        {"model": result.summary()},
        {"after - before": paired(result, result)},
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["arms"]["model"].keys() | summary["paired"]["after - before"].keys() == FIELDS


def test_a_table_row_has_a_formula():
    assert len(ROWS) > 30 and all(len(formula) > 2 for _, formula in ROWS)
