"""`python -m benchmarks` runs and keeps what it measured,
the page is rendered from data, and long runs do not leak.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import memory
from benchmarks.targets import BENCHMARKS, Benchmark, Target
from tests.support.command_line import refused

ROOT = Path(__file__).parents[2]
ROWS = [
    {
        "what": "fast",
        "unit": "ms",
        "ours": [1.0, 2.0],
        "peer": [8.0, 10.0],
        "ratio": [4.0, 5.0],
        "note": "n",
    },
    {
        "what": "slow",
        "unit": "ms",
        "ours": [1.0, 2.0],
        "peer": [1.0, 2.0],
        "ratio": [1.0, 1.0],
        "note": "",
    },
    {
        "what": "small",
        "unit": "MB",
        "ours": [0.123, 0.123],
        "peer": None,
        "ratio": None,
        "note": "",
    },
    {
        "what": "just so",
        "unit": "GB",
        "ours": [1234.0, 1234.0],
        "peer": None,
        "ratio": None,
        "note": "",
    },
]
MADE = Benchmark(
    title="made up",
    sides="Ours and theirs.",
    targets={
        "fast": Target(at_least=4),
        "slow": Target(at_least=4, explanation="because of it"),
        "small": Target(at_most=1),
    },
)


def benchmarks(*args) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `python -m benchmarks ARGS`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    return done.returncode, done.stdout, done.stderr


def test_bench_runs_one_and_keeps_its_numbers(tmp_path, capfd):
    bench.main(["folded_steps", "--quick", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "folded_steps.json").read_text())
    assert record["quick"] and record["machine"]["commit"] and record["machine"]["cores"] >= 1
    assert {r["what"] for r in record["rows"]} >= set(BENCHMARKS["folded_steps"].targets)
    assert all(
        0 < r["ours"][0] <= r["ours"][1] and 0 < r["ratio"][0] <= r["ratio"][1]
        for r in record["rows"]
    )
    out = capfd.readouterr().out
    assert "folded" in out and "step maths" in out


def test_bench_lists_and_refuses(capsys):
    bench.main(["--list"])
    out = capsys.readouterr().out
    assert all(name in out for name in BENCHMARKS)
    code, _, err = benchmarks("fly")
    assert code == 1 and err.startswith("benchmarks: error: unknown benchmark 'fly'")
    assert err.count("\n") == 1


def test_wamrl_itself_has_no_such_verb():
    """The package must not reach back into its checkout."""
    assert "unknown verb 'bench'" in refused("bench", code=2)


def test_every_benchmark_is_there():
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in BENCHMARKS)


def test_the_page_says_what_the_data_say(tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "made", MADE)
    (tmp_path / "some-machine").mkdir()
    record = {"name": "made", "quick": False, "machine": {"cpu": "c", "cores": 2}, "rows": ROWS}
    (tmp_path / "some-machine" / "made.json").write_text(json.dumps(record))
    lines = bench.render(tmp_path).splitlines()
    assert "## some-machine" in lines and "### made: made up" in lines
    assert "| fast | 1, 2 ms | 8, 10 ms | 4, 5 | >= 4 | met | n |" in lines
    assert "| slow | 1, 2 ms | 1, 2 ms | 1 | >= 4 | missed | because of it |" in lines
    assert "| small | 0.123 MB |  |  | <= 1 | met |  |" in lines
    assert "| just so | 1,234 GB |  |  |  |  |  |" in lines
    assert "`python -m benchmarks made`: cpu c, cores 2." in lines


def test_the_committed_page_is_rendered_from_the_committed_data():
    page, results = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "results"
    if not page.exists():
        pytest.skip("nothing was measured yet")
    assert page.read_text(encoding="utf-8") == bench.render(results), (
        "run `python -m benchmarks --report-only`"
    )
    assert "not explained yet" not in page.read_text(encoding="utf-8"), (
        "explain the miss in benchmarks/targets.py"
    )


def test_cycles_of_rollout_and_update_leak_nothing():
    rows = {r["what"]: r["ours"][1] for r in memory.growth(40, 15)}
    assert rows.pop("memory growth") < 0.5
    assert not any(rows.values()), rows
