"""What docs/results.md and the README copy from the committed study is what its report says."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

RESULTS = (ROOT / "docs/results.md").read_text()
README = (ROOT / "README.md").read_text()
SECTIONS = {"metaworld": "The study: ", "robosuite": "robosuite: "}  # study -> how its title begins
STUDIES = pytest.mark.parametrize("study", SECTIONS)


def section(study: str) -> list[str]:
    """The lines of docs/results.md on a study."""
    return RESULTS.split(f"\n## {SECTIONS[study]}")[1].split("\n## ")[0].splitlines()


def report(study: str) -> str:
    """What `wamrl study` wrote of the committed cells."""
    return (ROOT / "docs/study" / study / "report.md").read_text()


@STUDIES
def test_its_claims_are_those_that_were_tested(study):
    said = [line for line in section(study) if line.startswith("- **Claim")]
    found = [line for line in report(study).splitlines() if line.startswith("- **Claim")]
    assert said == [line for line in found if "**not tested**" not in line]


@STUDIES
def test_its_rows_are_those_of_the_tables(study):
    rows = [line for line in section(study) if is_row(line)]
    assert rows and rows == [line for line in report(study).splitlines() if is_row(line)]


def is_row(line: str) -> bool:
    """Of an arm in the table of a task."""
    return re.match(r"\| `\w+` \| \d+ x \d+ \|", line) is not None


@STUDIES
def test_it_counts_the_cells_that_are_committed(study):
    cells = len(list((ROOT / "docs/study" / study).glob("*/*/seed*/summary.json")))
    (total,) = re.findall(rf"`: {cells} of (\d+) cells finished", report(study))
    assert f"{cells} of the {total} cells" in "\n".join(section(study))


def test_the_readme_has_the_success_and_the_gain_of_the_tables():
    table = README[README.index("| | press-once") :].split("\n\n")[0]
    head, _, *rows = table.splitlines()
    tasks = re.findall(r"press-\w+|hammer", head)
    assert tasks == ["press-once", "hammer", "press-thrice"] and len(rows) == 8
    for row in rows:
        arm, *cells = [cell.strip() for cell in row.split("|")[1:-1]]
        for task, cell in zip(tasks, cells, strict=True):
            assert cell == (in_brief(task, arm.split("`")[1]) if cell else ""), (task, arm)


def in_brief(task: str, arm: str) -> str:
    """An arm's row of the report: success, and the gain over the base with its interval."""
    table = report("metaworld").split(f"\n## {task} (")[1].split("\n![")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{arm}` | 3 x 200 |")]
    cells = [cell.strip() for cell in row.split("|")]
    success = cells[3].split(" ")[0]
    return success if arm == "base" else f"{success}, {cells[6]}"
