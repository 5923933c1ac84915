"""A run folder from anybody: escaped, never left, never executed; and what is broken is refused."""

import json
import os

import pytest
from plotly.offline import get_plotlyjs

from tests.support.command_line import refused, wamrl
from tests.support.run_folders import write_run, write_study, write_video
from wamrl.page import RunFolder, run_page, study_page
from wamrl.page.render import page_html

EVIL = "</script><img src=x onerror=\"document.title='owned'\">{{ 7 * 7 }}"


def test_texts_of_a_folder_are_escaped(tmp_path):
    run = write_run(tmp_path / "a<b>", name=EVIL, env={"class": "x", EVIL: EVIL, "task": EVIL})
    summary = json.loads((run / "summary.json").read_text())
    for arm in summary["arms"].values():
        arm |= {"task": EVIL, "sampler": EVIL, "rates": {EVIL: 0.5}}
    summary["arms"][EVIL] = summary["arms"]["after"]
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "run.json").write_text(json.dumps({"command": [EVIL], "versions": {EVIL: EVIL}}))
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 7, f"diag/drift/{EVIL}": 1.0, "diag/alarm": 1.0}) + "\n")
    write_video(run / "videos" / "<i>x.mp4")
    html = page_html(run_page(RunFolder(run)))
    html = html.replace(get_plotlyjs(), "")
    assert "<img" not in html and "<i>x" not in html and "a<b>" not in html
    assert "&lt;img src=x" in html and "{{ 7 * 7 }}" in html


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text(json.dumps({"arms": {}, "token": "hunter2"}))
    run = write_run(tmp_path / "run", finished=False)
    (run / "summary.json").symlink_to(secret)
    (run / "run.json").symlink_to("../secret.txt")
    outside = write_video(tmp_path / "outside.mp4")
    (run / "videos").mkdir()
    (run / "videos" / "start0001-failure.mp4").symlink_to(outside)
    (run / "videos" / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(run / "videos" / "pipe.mp4")  # opening it would wait for ever
    page = run_page(RunFolder(run))
    html = page_html(page)
    assert "hunter2" not in html and 'class="mp4"' not in html
    assert "summary.json leads out of the folder and was not read." in html


def test_a_cell_outside_of_a_study_is_not_read(tmp_path):
    study = write_study(tmp_path / "study", missing=("short/wamrl/0",))
    elsewhere = write_run(tmp_path / "elsewhere")
    (study / "short" / "wamrl" / "seed0").symlink_to(elsewhere)
    page = study_page(RunFolder(study))
    assert "8 of 9" in page.lead
    assert any("leads out" in b.text for b in page.sections[0].blocks)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"arms": {"after": {"successes": 7, "episodes": 3}}}'),
        ("summary.json", '{"arms": []}'),
        ("summary.json", '{"arms": {"after": {"successes": 1, "episodes": "NaN"}}}'),
        ("summary.json", "[" * 100_000),
        ("config.json", "not json"),
        ("config.json", "[1]"),
        ("run.json", "\x00"),
    ],
)
def test_what_is_broken_is_refused_in_one_sentence(tmp_path, name: str, content: str):
    run = write_run(tmp_path / "run")
    (run / name).write_text(content)
    assert name in refused("report", run)
    assert not (run / "report.html").exists()


def test_lines_that_are_no_metrics_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('[1]\n"x"\n{"step": "a"}\n{"step": 9, "eval/success": 7, "eval/episodes": 2}\n')
        file.write('{"step": 9, "eval/success": 0.5, "eval/sampler": 99, "eval/episodes": 2}\n{"st')
    assert page_html(run_page(RunFolder(run)))


def test_the_verbs(tmp_path):
    one = write_run(tmp_path / "[red]one")
    two = write_run(tmp_path / "two", seed=3)
    code, out, err = wamrl("report", one)
    assert (code, err) == (0, "") and (one / "report.html").is_file() and "80.0 %" in out
    page = tmp_path / "page.html"
    code, out, err = wamrl("compare", one, two, "--html", page)
    assert (code, err) == (0, "") and page.is_file()
    assert "[red]one" in out and "8 of 10" in out and "seed" in out
    assert "is not a run folder" in refused("report", tmp_path)
    assert "is not a folder" in refused("report", tmp_path / "none")
    assert "two run folders" in refused("compare", one, code=2)
    assert "cannot write" in refused("report", one, "--html", tmp_path / "no" / "where.html")
