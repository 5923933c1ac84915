"""The documentation site builds without a warning and asks no server for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_it_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("sphinx", reason="needs pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    for source in (ROOT / "docs").glob("*.md"):
        assert f"{source.stem}.html" in pages
    assert "wamrl.load" in pages["reference.html"] and "<math" in pages["all-of-wamrl.html"]
    for name, page in pages.items():
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page)
        assert not loaded, name
