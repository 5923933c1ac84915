"""Tables and figures from made-up cells whose numbers are known."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from wamrl.report.summary import ratio_text
from wamrl.study.claims import Claim
from wamrl.study.plots import draw_horizon, draw_learning, looks_of
from wamrl.study.report import ReportText, write_files
from wamrl.study.results import CellResult, Results
from wamrl.study.tables import (
    comparison_rows,
    length_states,
    length_table,
    mean_ratios,
    recovery_table,
    result_row,
    sampler_rows,
    task_table,
)

ARMS = {"base": "b", "actor_success": "a", "wamrl": "w"}
WINS = {"base": 8, "actor_success": 10, "wamrl": 16}


def cell(task="reach", arm="base", seed=0, n=20, kind="staged", **changes) -> CellResult:
    success = (np.arange(n) + 3 * seed) % n < WINS[arm]
    base = CellResult(
        task=task,
        kind=kind,
        arm=arm,
        seed=seed,
        starts=np.arange(n),
        success=success,
        stages_done=np.where(success, 2, np.arange(n) % 2),
        goals=2,
        mean_length=30.0,
        sampler="zero",
        control_steps=0 if arm == "base" else 500,
        seconds=61.0,
        error_over_copy={"4": 0.5, "8": None},
        recovery=None,
        curve=() if arm == "base" else ((0.0, 0.3), (250.0, 0.5)),
    )
    return replace(base, **changes)


CELLS = [cell(arm=arm, seed=seed) for arm in ARMS for seed in (0, 1, 2)]
RESULTS = Results(CELLS, list(ARMS), ("reach",))


def test_pairs_are_the_states_that_both_arms_finished():
    lost = replace(CELLS[3], starts=np.array([5, 1, 19]), success=np.array([True, False, True]))
    results = Results([*CELLS[:3], lost], list(ARMS), ("reach",))
    ((seed, (before, after)),) = results.pairs("reach", "actor_success", "base").items()
    # 1, 5, 19
    assert (
        seed == 0
        and before.tolist() == [True, True, False]
        and after.tolist() == [False, True, True]
    )
    assert results.difference(["reach"], "actor_success", "base").episodes == 3
    assert results.difference(["reach"], "wamrl", "base") is None


def test_the_pooled_comparison_is_the_mean_over_seeds():
    table = comparison_rows(RESULTS)
    row = next(r for r in table if (r["arm"], r["against"], r["seed"]) == ("wamrl", "base", "all"))
    assert (row["before"], row["after"], row["difference"]) == pytest.approx((0.4, 0.8, 0.4))
    assert (
        row["gained"] - row["lost"] == 24
        and row["episodes"] == 60
        and row["low"] <= 0.4 <= row["high"]
    )
    assert row["p_holm"] >= row["p_value"] and "hierarchical" in row["method"]
    assert [r["seed"] for r in table if (r["arm"], r["against"]) == ("wamrl", "base")] == [
        0,
        1,
        2,
        "all",
    ]
    assert not [r for r in table if r["arm"] == "base" or r["arm"] == r["against"]]


def test_holm_corrects_over_the_arms_of_a_task():
    pooled = [r for r in comparison_rows(RESULTS) if r["seed"] == "all" and r["against"] == "base"]
    small, large = sorted(pooled, key=lambda r: r["p_value"])
    assert (
        small["p_holm"] == pytest.approx(min(1, 2 * small["p_value"]))
        and large["p_holm"] >= large["p_value"]
    )


def test_the_horizon_ends_in_success():
    first, last = (RESULTS.rate("reach", "wamrl", k) for k in (1, 2))
    assert (
        last.value == pytest.approx(0.8) == RESULTS.rate("reach", "wamrl").value
        and first.value > last.value
    )


def test_a_mean_ratio_needs_every_seed():
    some = replace(CELLS[1], error_over_copy={"4": 0.7, "8": 0.9})
    assert ratio_text(mean_ratios([CELLS[0], some])) == "+4: 0.60, +8: -"


def test_a_row_of_the_results():
    row = result_row(cell(recovery=(5, 2)))
    assert (row["successes"], row["episodes"], row["rate"], row["control_steps"]) == (
        8,
        20,
        "0.400000",
        0,
    )
    assert (row["reattempted"], row["recovered"], row["error_over_copy"]) == (5, 2, "+4:0.5000")
    assert (
        float(row["wilson_low"]) < 0.4 < float(row["wilson_high"])
        and result_row(cell())["recovered"] == ""
    )


def test_recovery_is_counted_where_attempts_are():
    after = {
        "starts": [0, 1, 2, 3],
        "success": [1, 0, 1, 1],
        "stages": 1,
        "mean_length": 3.0,
        "error_over_copy": {},
        "attempts": [1, 2, 3, 2],
    }
    summary = {
        "arms": {"after": after},
        "stages_done": [1, 0, 1, 1],
        "control_steps": 9,
        "seconds": 1.0,
    }
    names = {"task": "reach", "kind": "short", "arm": "base", "seed": 0, "curve": []}
    assert CellResult.from_summary(summary, **names).recovery == (3, 2)
    after |= {"reattempted": 2, "recovered": 1}  # what the evaluation itself says comes first
    assert CellResult.from_summary(summary, **names).recovery == (2, 1)
    table = recovery_table(
        Results([CellResult.from_summary(summary, **names)], ["base"], ["reach"])
    )
    assert "| reach | `base` | 4 | 2 | 1 | 50.0 [" in table and recovery_table(RESULTS) == ""
    del summary["control_steps"]
    with pytest.raises(ValueError, match="control_steps"):
        CellResult.from_summary(summary, **names)


def test_a_table_has_every_arm_and_difference():
    lines = task_table(RESULTS, "reach", comparison_rows(RESULTS)).splitlines()
    assert (
        len(lines) == 5
        and "40.0, 40.0, 40.0" in lines[2]
        and "+40.0 [" in lines[4]
        and "+30.0 [" in lines[4]
    )


def test_an_arm_keeps_its_colour_when_others_are_missing():
    looks = looks_of([f"arm{i}" for i in range(14)])
    assert (
        len({s["color"] for s in looks.values()})
        == len({s["marker"] for s in looks.values()})
        == 14
    )
    assert looks_of(list(ARMS))["wamrl"] == looks_of([*ARMS, "more"])["wamrl"]


def text(**changes) -> ReportText:
    claims = (
        Claim(
            number=5,
            text="joint beats actor-only",
            arm="wamrl",
            against="actor_success",
            kinds=("staged",),
        ),
    )
    base = ReportText(
        name="made-up",
        arms=ARMS,
        tasks=("reach", "press"),
        claims=claims,
        margin=0.05,
        command="wamrl study made-up",
        missing=(),
    )
    return replace(base, **changes)


def test_the_report_of_a_half_finished_study(tmp_path):
    """One task without any finished arm, one without anything."""
    write_files(
        tmp_path,
        [*CELLS, cell(task="press", kind="short", goals=1)],
        text(missing=("press/wamrl/0",)),
    )
    report = (tmp_path / "report.md").read_text()
    assert "10 of 11 cells" in report and "press/wamrl/0" in report and "Claim 5" in report
    assert "**supported**" in report and "at n = 60 pairs" in report
    figures = [f"{name}_{task}.png" for name in ("arms", "learning") for task in ("reach", "press")]
    figures.append("horizon_reach.png")  # a task of one stage has no horizon
    assert sorted(p.name for p in tmp_path.glob("*.png")) == sorted(figures)
    for name in figures:
        picture = imread(tmp_path / name)
        assert picture.shape[1] > 700 and picture[..., :3].std() > 0.01
    assert "k = 2" in report and report.count("horizon_") == 1
    with pytest.raises(ValueError, match="no cell"):
        write_files(tmp_path, [], text())


@pytest.mark.parametrize("during", [False, True])
def test_learning_curves_are_the_evaluations_where_there_are_any(during):
    """Before and after alone are no curve:
    then exploring success over control steps, as it was logged.
    """
    points = ((0.0, 0.2), (64.0, 0.6), (128.0, 0.8)) if during else ((0.0, 0.2), (128.0, 0.8))
    cells = [c if c.arm == "base" else replace(c, evaluated=points) for c in CELLS]
    axes = Figure().add_subplot()
    draw_learning(axes, Results(cells, list(ARMS), ("reach",)), "reach", looks_of(list(ARMS)))
    lines = [np.array(line.get_xydata()) for line in axes.lines]
    x_label = axes.get_xlabel()
    title = axes.get_title()
    assert len(lines) == 2
    expected = [[0, 20], [64, 60], [128, 80]] if during else [[0, 30], [250, 50]]
    for line in lines:
        assert line == pytest.approx(np.array(expected))
    assert ("episodes" in x_label) == during == ("held-out" in title)
    assert ("control steps" in x_label) != during


def at_lengths(arms=("base", "wamrl"), seeds=(0, 1)) -> list[CellResult]:
    """Of 10 states, K = 1 wins 9 and K = 3 one more per seed;
    the task's own K = 2 wins `WINS` of 20.
    """
    return [
        replace(c, lengths={1: np.arange(10) < 9, 3: np.arange(10) <= c.seed})
        if c.arm in arms and c.seed in seeds
        else c
        for c in CELLS
    ]


def test_success_by_sampler_is_of_the_cells_that_played_all():
    rates = {"explore": 0.5, "ode": 0.25, "zero": 0.75}
    cells = [replace(c, rates=rates if c.arm == "wamrl" else {"ode": 0.5}) for c in CELLS]
    (row,) = sampler_rows(Results(cells, list(ARMS), ("reach",)), "reach")
    seeds = "({0}, {0}, {0})"
    assert row[:4] == [
        "wamrl",
        "50.0 " + seeds.format("50.0"),
        "25.0 " + seeds.format("25.0"),
        "75.0 " + seeds.format("75.0"),
    ]
    assert row[4].startswith("80.0 (") and not sampler_rows(RESULTS, "reach")


def test_success_at_other_lengths_is_that_of_the_seeds_evaluated_there():
    results = Results(at_lengths(), list(ARMS), ("reach",))
    assert results.lengths("reach") == [1, 2, 3] and RESULTS.lengths("reach") == []
    longest = results.at_length("reach", "wamrl", 3)
    assert (longest.value, longest.seeds, longest.episodes) == (pytest.approx(0.15), 2, 20)
    assert results.at_length("reach", "wamrl", 2) == results.rate("reach", "wamrl")
    assert results.at_length("reach", "actor_success", 3) is None
    head, _, base, actor, wamrl = length_table(results, "reach").splitlines()
    assert head == "| arm | K = 1 | K = 2 (trained) | K = 3 | sampler |"
    assert "90.0 [" in base and "40.0 [" in base and "zero, zero, zero" in base
    assert actor.startswith("| `actor_success` | - | 50.0 [") and "15.0 [" in wamrl
    words = (
        "K = 1: 20 episodes of 2 seeds; K = 2: 60 episodes of 3 seeds; K = 3: 20 episodes of 2 "
        "seeds"
    )
    assert length_states(results, "reach") == words


def test_a_summary_gives_its_lengths():
    after = {
        "starts": [0],
        "success": [1],
        "stages": 3,
        "mean_length": 3.0,
        "error_over_copy": {},
    }
    summary = {"arms": {"after": after}, "stages_done": [3], "control_steps": 9, "seconds": 1.0}
    names = {"task": "reach", "kind": "staged", "arm": "base", "seed": 0, "curve": []}
    assert CellResult.from_summary(summary, **names).lengths == {}
    summary["lengths"] = {"4": {"success": [0, 1], "starts": [0, 1], "successes": 1, "episodes": 2}}
    assert CellResult.from_summary(summary, **names).at_length(4).tolist() == [0, 1]
    assert CellResult.from_summary(summary, **names).at_length(3).tolist() == [1]


@pytest.mark.parametrize("evaluated", [False, True])
def test_the_horizon_is_over_lengths_where_there_are_any(evaluated):
    cells = at_lengths() if evaluated else CELLS
    axes = Figure().add_subplot()
    draw_horizon(axes, Results(cells, list(ARMS), ("reach",)), "reach", looks_of(list(ARMS)))
    lines = {c.get_label(): c.lines[0].get_xydata() for c in axes.containers}
    x_label = axes.get_xlabel()
    y_label = axes.get_ylabel()
    assert ("K" in x_label and "success" in y_label) == evaluated == ("at least" not in y_label)
    if evaluated:
        assert set(lines) == {"base", "wamrl"}, "an arm that has one length only is no curve"
        assert lines["wamrl"][:, 1] == pytest.approx([90, 80, 15])
        assert lines["wamrl"][:, 0].round().tolist() == [1, 2, 3]
        assert (np.abs(lines["wamrl"][:, 0] - lines["base"][:, 0]) > 0.05).all()
    else:
        assert set(lines) == set(ARMS) and lines["wamrl"][-1, 1] == pytest.approx(80)


def test_the_report_shows_lengths_also_of_a_task_of_one_sub_goal(tmp_path):
    cells = [replace(c, goals=1, lengths={2: c.success[:10]}) for c in CELLS]
    write_files(tmp_path, cells, text(tasks=("reach",)))
    report = (tmp_path / "report.md").read_text()
    assert "| arm | K = 1 (trained) | K = 2 | sampler |" in report and "horizon_reach.png" in report
    assert "K = 2: 30 episodes of 3 seeds" in report and "at least k sub-goals" not in report
