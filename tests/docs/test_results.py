"""What docs/results.md and the README copy from the committed study is what its report says."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

RESULTS = (ROOT / "docs/results.md").read_text()
STUDY = RESULTS.split("\n## The study: ")[1].split("\n## ")[0]
README = (ROOT / "README.md").read_text()
REPORT = (ROOT / "docs/study/metaworld/report.md").read_text()


def test_its_claims_are_those_that_were_tested():
    said = [line for line in STUDY.splitlines() if line.startswith("- **Claim")]
    found = [line for line in REPORT.splitlines() if line.startswith("- **Claim")]
    assert said == [line for line in found if "**not tested**" not in line]


def test_its_rows_are_those_of_the_tables():
    rows = [line for line in STUDY.splitlines() if re.match(r"\| `\w+` \| \d+ x \d+ \|", line)]
    assert rows == [
        line for line in REPORT.splitlines() if re.match(r"\| `\w+` \| \d+ x \d+ \|", line)
    ]


def test_it_counts_the_cells_that_are_committed():
    finished = len(list((ROOT / "docs/study/metaworld").glob("*/*/seed*/summary.json")))
    assert f"{finished} of the 84 cells" in STUDY
    assert f"{finished} of 84 cells finished" in REPORT


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
    table = REPORT.split(f"\n## {task} (")[1].split("\n![")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{arm}` | 3 x 200 |")]
    cells = [cell.strip() for cell in row.split("|")]
    success = cells[3].split(" ")[0]
    return success if arm == "base" else f"{success}, {cells[6]}"
