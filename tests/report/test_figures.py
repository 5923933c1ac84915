"""Figures: what they draw, what they refuse, that nothing stands on the data."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from wamrl.report import Point, diagnostics_figure, learning_curve, rewards_figure
from wamrl.report.style import legend_below, saved_figure


def test_learning_curve_draws_every_curve(tmp_path):
    points = [Point(x=i, successes=3 * i, episodes=30) for i in range(8)]
    single = [Point(x=4, successes=5, episodes=10), Point(x=5, successes=0, episodes=0)]
    learning_curve(
        tmp_path / "c.png", {"rollouts": points, "eval": single, "none": []}, title="point"
    )
    picture = imread(tmp_path / "c.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 700
    with pytest.raises(ValueError, match="no episode"):
        learning_curve(tmp_path / "d.png", {"none": []})


def test_thin_lines_have_no_band(tmp_path):
    """Of two curves with wide intervals, the one drawn thin leaves its surroundings white."""
    points = [Point(x=i, successes=5, episodes=10) for i in range(3)]
    tinted = {}
    for thin in ((), ("a",)):
        path = tmp_path / f"{len(thin)}.png"
        learning_curve(path, {"a": points}, thin=thin)
        picture = imread(path)[..., :3]
        tinted[thin] = float((picture.max(-1) - picture.min(-1) > 0.05).mean())
    assert tinted[()] > 0.1 > 0.01 > tinted[("a",)]


def test_the_diagnostics_figure_takes_gaps_and_refuses_nothing_to_draw(tmp_path):
    row = {
        "step": 1,
        "diag/mean/reconstruction": -0.1,
        "diag/auc/gain": None,
        "rollout/success": 0.0,
        "diag/alarm": 1,
    }
    none = np.zeros(0, bool)
    diagnostics_figure(tmp_path / "a.png", [{"step": 0, "sft/lr": 1.0}, row], {}, none)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no iteration was diagnosed"):
        diagnostics_figure(tmp_path / "b.png", [{"step": 0}], {}, none)


def test_every_figure_has_the_one_look_and_leaves_none_behind(tmp_path):
    before = dict(matplotlib.rcParams)
    with saved_figure(tmp_path / "a.png", 4, 3, dots_per_inch=100) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], label="a curve")
        legend_below(axes)
        assert not axes.spines["top"].get_visible()
    assert imread(tmp_path / "a.png").shape[:2] == (300, 400)
    assert dict(matplotlib.rcParams) == before
    legend = axes.get_legend().get_window_extent()
    assert legend.y1 < axes.get_window_extent().y0, "a legend stands under its axes"


def test_a_figure_that_fails_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError):
        with saved_figure(path, 4, 3):
            raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_rewards_figure_takes_scores_that_are_missing(tmp_path):
    success = np.arange(20) % 2 == 0
    scores = {("pixel", "gain"): np.arange(20.0), ("pixel", "copy"): np.full(20, np.nan)}
    aucs = dict.fromkeys(scores, 0.5)
    rewards_figure(tmp_path / "r.png", scores, aucs, success)
    assert imread(tmp_path / "r.png").shape[1] > 700
