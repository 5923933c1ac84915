"""The deployed sampler, evaluation during training,
which changes nothing, and the checkpoint `best`.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from wamrl.config import Config
from wamrl.evaluate import deploy
from wamrl.models.saved import load_state, save_wam
from wamrl.online.look import draw_diagnostics, log_result, look
from wamrl.online.state import TrainingState
from wamrl.rollout.collect import collect
from wamrl.runs.folder import open_model
from wamrl.runtime.log import Logger, new_run, read_metrics
from wamrl.train import improve, iterate
from wamrl.types import SAMPLERS, InitialState

BEFORE = {"successes": 1, "episodes": 4, "sampler": "ode", "rates": {"ode": 0.25, "zero": 0.5}}


def evaluating(every: int, **flow) -> Config:
    """Three iterations, evaluated on few states; saved and drawn at their end."""
    watched = replace(tiny.CONFIG.eval, every=every, during=3, choose=3)
    cfg = tiny.train_config(save_every=3)
    return replace(cfg, eval=watched, flow=replace(cfg.flow, **flow))


def begun(cfg: Config) -> TrainingState:
    return TrainingState(cfg, tiny.lively(), tiny.demos(), 40)


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.build_pool() as pool:
        yield pool


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, InitialState]]:
    """What has been collected by whom, through `wamrl.evaluate`."""
    found: list[tuple[str, InitialState]] = []

    def listen(wam, pool, starts, flow, **options):
        found.extend((options["sampler"], start) for start in starts)
        return collect(wam, pool, starts, flow, **options)

    monkeypatch.setattr("wamrl.evaluate.collect", listen)
    return found


# --- the deployed sampler


def test_auto_chooses_on_training_states_only(pool, asked):
    wam = tiny.lively()
    rates = deploy(wam, pool, evaluating(0).eval, tiny.CONFIG.flow, seed=0)
    assert wam.sampler == next(iter(rates)) and rates[wam.sampler] == max(rates.values())
    assert {sampler for sampler, _ in asked} == set(SAMPLERS)
    assert {start.split for _, start in asked} == {"train"}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("saved", [None, "zero"])
def test_a_fixed_sampler_is_not_argued_with(pool, asked, again, saved):
    cfg = evaluating(0, deploy="ode")
    wam = tiny.lively()
    wam.sampler = saved
    rates = deploy(wam, pool, cfg.eval, cfg.flow, seed=0, again=again)
    assert rates == {} and wam.sampler == "ode"
    assert not asked


def test_a_saved_sampler_stays_unless_the_model_has_learned(pool, asked, tmp_path):
    cfg = evaluating(0)
    wam = tiny.lively()
    wam.sampler = "zero"
    save_wam(cfg.model, tiny.ENV.build().spec, wam, tmp_path, "final")
    loaded = open_model(cfg, tmp_path)
    assert loaded.sampler == "zero"
    where = (loaded, pool, cfg.eval, cfg.flow)
    assert deploy(*where, seed=0) == {} and loaded.sampler == "zero"
    assert not asked
    assert deploy(*where, seed=0, again=True).keys() == set(SAMPLERS) and asked


# --- during training


def trained(cfg: Config, pool, root: Path) -> tuple[TrainingState, Path]:
    run = new_run(root, "watched", cfg)
    one = begun(cfg)
    torch.manual_seed(0)
    with Logger(run) as logger:
        improve(one, pool, run, logger, before=BEFORE)
    return one, run


def test_evaluating_changes_nothing_in_the_run(pool, tmp_path):
    """Weights, optimisers, buffers, budget, random streams and metrics: bitwise as without."""
    states, rows = [], []
    for every in (0, 1):
        one, run = trained(evaluating(every), pool, tmp_path)
        own = {"buffer": one.buffer.own_state(), "torch": torch.rand(3), "best": None}
        states.append(one.state_dict() | own)
        rows.append(
            [
                {k: v for k, v in row.items() if not k.startswith(("eval/", "time/", "seconds"))}
                for row in read_metrics(run)
            ]
        )
    assert tiny.difference(*states) is None
    assert rows[0] == rows[1] and len(rows[0]) == 4


def test_the_log_holds_the_points_of_the_curve(pool, tmp_path):
    _, run = trained(evaluating(2), pool, tmp_path)
    rows = read_metrics(run)
    points = {row["step"]: row for row in rows if "eval/success" in row}
    assert list(points) == [0, 2], "the last point is the evaluation after the run"
    assert [row["step"] for row in rows if "eval/choose_success" in row] == [0, 2, 3]
    assert points[0]["eval/success"] == 0.25 and points[0]["eval/success/zero"] == 0.5
    assert points[0]["eval/episodes"] == 4 and points[2]["eval/episodes"] == 3
    assert (
        points[2]["eval/success_low"] <= points[2]["eval/success"] <= points[2]["eval/success_high"]
    )
    assert all(f"eval/success/{sampler}" in points[2] for sampler in SAMPLERS)
    assert points[2]["time/eval"] > 0 and "rollout/success" in points[2]


def test_states_that_choose_are_not_those_of_the_curve(pool, tmp_path, asked):
    trained(evaluating(1), pool, tmp_path)
    choosing = {start for _, start in asked if start.split == "train"}
    shown = {start for _, start in asked if start.split == "eval"}
    assert shown == {InitialState(split="eval", index=i) for i in range(3)} and len(choosing) == 3


def test_best_is_the_first_of_the_highest_on_training_states(pool, tmp_path, monkeypatch):
    script = iter(
        [{"ode": 0.2, "zero": 0.1}, {"zero": 0.7, "ode": 0.0}, {"ode": 0.7}, {"ode": 0.3}]
    )

    def scripted(wam, pool, cfg, flow, *, seed, again):
        rates = next(script)
        wam.sampler = next(iter(rates))
        return rates

    seen = {}

    def remember(one, *args):
        found = iterate(one, *args)
        seen[one.iteration] = tiny.snapshot(one.wam)
        return found

    monkeypatch.setattr("wamrl.online.look.deploy", scripted)
    monkeypatch.setattr(sys.modules[improve.__module__], "iterate", remember)
    cfg = evaluating(1)
    _, run = trained(cfg, pool, tmp_path)
    assert not list(script), "the choice of the last iteration serves the final model too"
    best = open_model(cfg, run / "checkpoints" / "best")
    assert best.sampler == "zero" and not tiny.changed(best, seen[1])
    final = open_model(cfg, run)
    assert final.sampler == "ode" and not tiny.changed(final, seen[3])
    saved = load_state(run / "checkpoints" / "best")
    assert (saved["iteration"], saved["choose_success"]) == (1, 0.7)


def test_a_base_that_training_ruins_is_the_best(pool, tmp_path, monkeypatch):
    script = iter([{"ode": 0.2}, {"zero": 0.1}, {"zero": 0.2}, {"ode": 0.0}])
    monkeypatch.setattr("wamrl.evaluate.choose_sampler", lambda *a, **k: next(script))
    cfg = evaluating(1)
    _, run = trained(cfg, pool, tmp_path)
    best = open_model(cfg, run / "checkpoints" / "best")
    assert best.sampler == "ode" and not tiny.changed(best, tiny.snapshot(tiny.lively()))


def test_a_fixed_sampler_has_a_best_too(pool, tmp_path, asked):
    cfg = evaluating(1, deploy="zero")
    _, run = trained(cfg, pool, tmp_path)
    assert open_model(cfg, run / "checkpoints" / "best").sampler == "zero"
    assert {sampler for sampler, start in asked if start.split == "train"} == {"zero"}


def test_without_evaluation_there_is_no_best(pool, tmp_path):
    _, run = trained(evaluating(0), pool, tmp_path)
    assert not (run / "checkpoints" / "best").exists()
    assert [row["step"] for row in read_metrics(run) if "eval/success" in row] == [0]


def test_best_of_an_abandoned_future_does_not_count(pool, tmp_path, monkeypatch):
    """What the best was is part of a run's state:
    a run that goes on before the iteration of its `best` finds it anew.
    """
    cfg = evaluating(1)
    rates = iter([{"ode": 0.2}, {"ode": 0.9}, {"ode": 0.9}, {"ode": 0.5}])
    monkeypatch.setattr("wamrl.evaluate.choose_sampler", lambda *a, **k: next(rates))
    one = begun(cfg)
    look(one, pool, tmp_path)
    early = one.state_dict()
    one.iteration = 1
    look(one, pool, tmp_path)
    assert one.best == 0.9 and one.state_dict()["best"] == 0.9
    again = begun(cfg)
    again.load_state_dict(early, [])
    assert again.best == 0.2
    again.iteration = 2
    look(again, pool, tmp_path)
    again.iteration = 3
    look(again, pool, tmp_path)
    assert load_state(tmp_path / "checkpoints" / "best")["iteration"] == 2


def test_an_arm_is_logged_once(tmp_path):
    run = new_run(tmp_path, "once", tiny.CONFIG)
    with Logger(run) as logger:
        log_result(logger, run, 0, BEFORE, {"eval/choose_success": 0.5})
        log_result(logger, run, 0, BEFORE)
    (row,) = read_metrics(run)
    assert row["eval/choose_success"] == 0.5 and row["eval/sampler"] == SAMPLERS.index("ode")


def test_diagnostics_are_drawn_once_a_minute_or_when_asked(tmp_path):
    """Drawing after each iteration took a tenth of the quickstart's."""
    cfg = evaluating(0)
    run = new_run(tmp_path, "drawn", cfg)
    picture = run / "diagnostics.png"
    state = begun(cfg)
    with Logger(run) as logger:
        logger.log(1, {"diag/mean/reconstruction": -0.1})
    draw_diagnostics(run, state, every=60)
    assert not picture.exists(), "the run is young"
    for last in (run / "config.json", picture):
        os.utime(last, (0, 0))
        draw_diagnostics(run, state, every=60)
        drawn = picture.stat().st_mtime_ns
        assert drawn > 0
        draw_diagnostics(run, state, every=60)
        assert picture.stat().st_mtime_ns == drawn
    draw_diagnostics(run, state)
    assert picture.stat().st_mtime_ns > drawn
