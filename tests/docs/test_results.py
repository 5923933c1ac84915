"""What docs/results.md copies from the committed study is what the study's report says."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

RESULTS = (ROOT / "docs/results.md").read_text()
STUDY = RESULTS.split("\n## The study: ")[1].split("\n## ")[0]
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
