"""Axes and legends say what is drawn."""

import pytest

from wamrl.page.panels import reward_plots, sft_plots
from wamrl.page.plots import PER_CENT, curve, figure


@pytest.mark.parametrize(
    ("x", "whole"),
    [([1, 2], True), ([0, 4, 8], True), ([3], True), ([0, 500], False), ([0.5, 1], False)],
)
def test_what_is_counted_has_no_ticks_between(x, whole: bool):
    drawn = figure(curve(x, x, "blue", "it"), x="iteration", y="loss")
    assert (drawn["layout"]["xaxis"].get("dtick") == 1) == whole


def test_ticks_that_are_given_stay():
    drawn = figure(curve([50], [1], "blue", "it"), x="success, %", y="", xaxis=PER_CENT)
    assert drawn["layout"]["xaxis"]["tickmode"] == "array"


def test_small_numbers_are_powers_of_ten_and_not_micro():
    layout = figure(curve([1], [1e-5], "blue", "it"), x="iteration", y="raw")["layout"]
    assert layout["yaxis"]["exponentformat"] == layout["xaxis"]["exponentformat"] == "power"


def test_a_legend_shows_a_line_only_where_one_is_drawn():
    rows = [{"step": s, "sft/action_loss": 1.0, "sft/video_loss": 2.0} for s in (-9, -6, -3)]
    assert {key.mark for plot in sft_plots(rows[:2]) for key in plot.keys} == {"dot"}
    assert {key.mark for plot in sft_plots(rows) for key in plot.keys} == {"line"}


def test_a_figure_without_a_number_says_so():
    rows = [{"step": s, "diag/mean/reconstruction": -0.1} for s in (1, 2)]
    found = {plot.title: plot.note for plot in reward_plots(rows)}
    assert (
        "Empty: the number is defined in no iteration."
        in found["Does the reward tell success from failure?"]
    )
    some = [*rows, {"step": 3, "diag/mean/reconstruction": -0.1, "diag/auc/gain": 0.7}]
    found = {plot.title: plot.note for plot in reward_plots(some)}
    assert "Gaps" in found["Does the reward tell success from failure?"]


def test_one_of_two_outcomes_is_named():
    rows = [{"step": 1, "diag/mean/reconstruction": -0.1, "diag/mean_failure/gain": -0.2}]
    found = {plot.title: plot.keys for plot in reward_plots(rows)}
    assert [key.label for key in found["Mean score by outcome: gain"]] == ["failures"]
