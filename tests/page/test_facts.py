"""What pages say is what the folders say: numbers, what is missing, what is not finished."""

import json

import numpy as np
import pytest

from tests.support.run_folders import AFTER, BEFORE, rows, write_run, write_study, write_video
from wamrl.page import RunFolder, compare_page, comparison, run_page, study_page
from wamrl.page.blocks import Folded, Plots, Table, Text, Videos
from wamrl.page.facts import read_run
from wamrl.page.folder import flat, number
from wamrl.stats.paired import paired_difference, wilson
from wamrl.study.results import on_one_axis


def blocks(page, kind):
    """All blocks of a kind, also folded ones."""
    found = [b for section in page.sections for b in section.blocks]
    found += [inner for b in found if isinstance(b, Folded) for inner in b.blocks]
    return [b for b in found if isinstance(b, kind)]


def plots(page):
    return {plot.title: plot for block in blocks(page, Plots) for plot in block.items}


def words(page) -> str:
    return " ".join(block.text for block in blocks(page, Text))


def test_a_run_says_what_its_summary_says(tmp_path):
    page = run_page(RunFolder(write_run(tmp_path / "run")))
    pair = paired_difference(BEFORE, AFTER)
    low, high = wilson(8, 10)
    table = blocks(page, Table)[0]
    ends = f"{100 * low:.1f} to {100 * high:.1f} %"
    assert table.rows[1][:5] == ["after", "8 of 10", "80.0 %", ends, "zero"]
    assert table.rows[1][-1] == "+4: 0.50, +8: -"  # what was not measured is no 0
    assert f"{pair.gained} gained" in words(page) and f"{pair.lost} lost" in words(page)
    assert f"p = {pair.p_value:.2g}" in words(page)
    numbers = [n for s in page.sections for b in s.blocks if b.kind == "numbers" for n in b.items]
    assert [n.value for n in numbers] == ["30.0 %", "80.0 %", "+50.0 points"]
    assert f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}" in numbers[2].detail
    assert "rose" in page.lead and "30.0 %" in page.lead and "80.0 %" in page.lead


def test_every_plot_has_labelled_axes_and_no_legend_over_its_data(tmp_path):
    folders = [RunFolder(write_run(tmp_path / name)) for name in ("a", "b")]
    pages = [run_page(folders[0]), study_page(RunFolder(write_study(tmp_path / "study")))]
    pages.append(compare_page(comparison(folders)))
    found = [plot for page in pages for plot in plots(page).values()]
    assert len(found) > 15
    for plot in found:
        layout = plot.figure["layout"]
        for axis in ("xaxis", "yaxis"):
            named = layout[axis].get("title", {}).get("text")
            # rows of dots are named above each dot
            assert named or layout[axis].get("visible") is False, (plot.title, axis)
        assert layout["showlegend"] is False and json.dumps(plot.figure, allow_nan=False)


def test_missing_numbers_are_gaps_and_said(tmp_path):
    page = run_page(RunFolder(write_run(tmp_path / "run")))
    plot = plots(page)["Error of the imagination, over copying"]
    values = plot.figure["data"][1]["y"]
    assert values.count(None) == 1 and 0 not in values and "Gaps" in plot.note


def test_two_points_are_no_curve(tmp_path):
    page = run_page(RunFolder(write_run(tmp_path / "short", iterations=1)))
    drawn = plots(page)["Success over what was played"].figure["data"]
    assert drawn and all("lines" not in trace["mode"] for trace in drawn)
    assert all("error_y" in trace for trace in drawn if "sampler '" not in trace["name"])


@pytest.mark.parametrize(
    ("iterations", "says"), [(4, "iteration 4 of 6"), (0, "Nothing has been logged")]
)
def test_an_unfinished_run_says_so(tmp_path, iterations: int, says: str):
    run = write_run(tmp_path / "run", finished=False, iterations=iterations)
    if not iterations:
        (run / "metrics.jsonl").unlink()
    page = run_page(RunFolder(run))
    assert says in page.lead
    assert "No model of this run has been evaluated yet." in words(page)


def test_time_by_phase_adds_up_to_the_whole(tmp_path):
    run = read_run(RunFolder(write_run(tmp_path / "run")))
    assert run.seconds["rollout"] == 18.0 and run.seconds["online"] == 9.0
    assert sum(run.seconds.values()) == pytest.approx(60.0)


def test_failures_come_first_and_large_videos_stay_out(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("before/start0001-success", "after/start0002-failure", "compare/start0003"):
        write_video(run / "videos" / f"{name}.mp4")
    (run / "videos" / "start0009-failure.mp4").write_bytes(b"this is no video")
    page = run_page(RunFolder(run))
    (gallery,) = blocks(page, Videos)
    assert [v.outcome for v in gallery.items] == ["failure", "success", ""]
    assert gallery.items[0].title == "initial state 2" and gallery.items[0].frames == 6
    assert "start0009-failure.mp4" in words(page)
    assert "4 of 4 videos are not in this page" in words(run_page(RunFolder(run), video_mb=0))


def test_a_study_names_its_missing_cells_and_judges_its_claims(tmp_path):
    page = study_page(RunFolder(write_study(tmp_path / "study")))
    assert "8 of 9 cells" in page.lead
    claims, cells, *_ = blocks(page, Table)
    # two seeds decide nothing
    assert [row[1] for row in claims.rows] == ["undecided", "undecided"]
    assert claims.rows[0][4].endswith("2 seeds")
    assert next(row for row in cells.rows if row[0] == "wamrl")[1].endswith("1 missing")
    assert "short/wamrl/2" in words(page)
    whole = study_page(RunFolder(write_study(tmp_path / "whole", missing=())))
    assert [row[1] for row in blocks(whole, Table)[0].rows][0] == "supported"
    assert "All 9 cells are finished" in whole.lead


def test_a_comparison_pairs_only_the_same_initial_states(tmp_path):
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", seed=1)
    other = write_run(tmp_path / "other", env={"class": "a:PointConfig", "horizon": 41})
    young = write_run(tmp_path / "young", finished=False, iterations=2)
    found = comparison([RunFolder(p) for p in (one, two, other, young)])
    assert [row[:3] for row in found.paired.rows] == [["2: two", "+0.0", "10"]]
    assert "env.horizon" in found.notes[0] and "no evaluated model" in found.notes[1]
    assert "not finished (2 of 6 iterations)" in found.success.rows[3]
    settings = {row[0]: row[1:] for row in found.settings.rows}
    assert settings == {"seed": ["0", "1", "0", "0"], "env.horizon": ["40", "40", "41", "40"]}
    for few in ([one], [one, one]):
        with pytest.raises(ValueError, match="two run folders|named twice"):
            comparison([RunFolder(p) for p in few])


def test_curves_of_seeds_are_drawn_where_all_have_been():
    a = np.array([[0, 0.0], [10, 1.0]])
    b = np.array([[0, 0.0], [20, 1.0]])
    x, y = on_one_axis([a, b])
    assert x.tolist() == [0, 10] and y.tolist() == [[0, 1], [0, 0.5]]


def test_only_finite_numbers_are_numbers():
    odd = [float("nan"), float("inf"), "3", None, 10**400, [1], 2]
    assert [number(v) for v in odd] == [None] * 6 + [2.0]
    assert flat({"class": "m:C", "a": {"class": "m:D", "b": [1, 2.5]}, "c": None}) == {
        "class": "m:C",
        "a": "D",
        "a.b": "1, 2.5",
        "c": "none",
    }
    assert rows(1)[0]["step"] == 0


def test_what_a_run_was_not_given_is_no_list_of_names(tmp_path):
    run = write_run(tmp_path / "run")
    record = {"keys": {"views": [], "rename": ["a=b"], "action_key": ""}}
    (run / "run.json").write_text(json.dumps(record))
    table = next(
        t for t in blocks(run_page(RunFolder(run)), Table) if ["keys", "rename a=b"] in t.rows
    )
    assert table.code
