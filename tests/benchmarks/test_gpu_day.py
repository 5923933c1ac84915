"""`benchmarks/gpu_day`: a dry run on the CPU, what a limit does, and the wheels that travel."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks.gpu_day import Step
from tests.support.processes import runs, wait_for_end

ROOT = Path(__file__).parents[2]
STUBBORN = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
SEES = "import json, sys; print([*json.load(open(sys.argv[1]))['steps']]); "
SEES += "json.dump({'rows': []}, open(sys.argv[2], 'w'))"


def python(code: str, *words: object) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *map(str, words))


@pytest.mark.timeout(900)
def test_a_dry_run_on_the_cpu(tmp_path):
    """All but the profile's and the compiler's step, which are slow.

    One is stopped at its limit, the study as its time is over.
    """
    names = ["parity", "mfu", "one-rank", "online-cpu", "study"]
    command = [sys.executable, "-m", "benchmarks.gpu_day", tmp_path / "out", "--dry-run"]
    command += ["--work", tmp_path / "work"]
    command += ["--only", *names, "--limit", "mfu=1", "study=1"]
    command += ["parity=600", "one-rank=600", "online-cpu=600"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WAMRL_COMMIT": "abc1234"}
    done = subprocess.run(
        [str(w) for w in command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=880
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    steps = results["steps"]
    assert [*steps] == names and results["commit"] == "abc1234", done.stderr
    usual = dict.fromkeys(names, "done")
    usual |= {"mfu": "stopped at its limit", "study": "stopped when the time was over"}
    assert {name: r["outcome"] for name, r in steps.items()} == usual, steps
    assert (
        done.returncode == 1 and "not done: mfu;" in done.stderr
    )  # the study is meant to fill what is left
    found = {name: r["result"]["rows"] for name, r in steps.items() if "result" in r}
    rows = {name: {row["what"]: row for row in listed} for name, listed in found.items()}
    assert rows["parity"]["nano, 12 x 4, K = 4, cpu, one at a time, chunk"]["ours"][0] < 1e-3
    assert rows["parity"]["nano, 12 x 4, K = 4, cpu, both in bfloat16, chunk"]["ours"][0] > 1e-4
    assert {"SFT step, one rank, gloo", "SFT step, one rank, gloo, sharded"} <= rows[
        "one-rank"
    ].keys()
    assert rows["online-cpu"]["cpu: episodes per second of an iteration"]["ours"][0] > 0
    with tarfile.open(tmp_path / "out" / "files.tar.gz") as tar:
        packed = tar.getnames()
    assert "logs/mfu.log" in packed and any(
        n.startswith("online/cpu/") and n.endswith("summary.json") for n in packed
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["files.tar.gz", "results.json"]


def test_a_step_that_exceeds_its_limit_is_killed_and_the_next_ones_run(tmp_path, monkeypatch):
    """Also what it has started itself; each step finds those before it in results.json."""
    monkeypatch.setattr(gpu_day, "PATIENCE_S", 0.5)
    out = tmp_path / "out"
    pids = [tmp_path / "own", tmp_path / "child"]
    begin = (
        f"import subprocess, sys; subprocess.Popen({list(python(STUBBORN, pids[1]))!r}); {STUBBORN}"
    )
    monkeypatch.setattr(
        gpu_day,
        "steps",
        lambda *_: [
            Step(name="first", command=python("print('hello')"), limit=60),
            Step(name="stubborn", command=python(begin, pids[0]), limit=4),
            Step(
                name="broken", command=python("print('the reason'); raise SystemExit(3)"), limit=60
            ),
            Step(name="last", command=python(SEES, out / "results.json", "{json}"), limit=60),
            Step(name="late", command=python(SEES, out / "results.json", "{json}"), limit=1e9),
        ],
    )
    o = gpu_day.arguments([str(out), "--work", str(tmp_path / "work"), "--minutes", "10"])
    ran = gpu_day.day(o)["steps"]
    saved = json.loads((out / "results.json").read_text())["steps"]
    assert ran == saved
    outcomes = {name: record["outcome"] for name, record in saved.items()}
    assert outcomes == {
        "first": "done",
        "stubborn": "stopped at its limit",
        "broken": "failed (exit code 3)",
        "last": "done",
        "late": "done",
    }
    assert 4 <= saved["stubborn"]["seconds"] < 30 and saved["broken"]["log"] == ["the reason"]
    assert (
        "['first', 'stubborn', 'broken']" in (tmp_path / "work" / "logs" / "last.log").read_text()
    )
    wait_for_end([pid.read_text() for pid in pids])
    o.minutes = 0.0  # a later call with the same --work goes on, and has no time for this one
    again = gpu_day.day(o)["steps"]
    assert again["late"] == again["late"] | {"outcome": "no time was left", "seconds": 0.0}


def test_what_runs_beside_has_other_cores_and_ends_with_the_steps(tmp_path, monkeypatch):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    said = tmp_path / "said"
    show = python("import os, time; print(os.sched_getaffinity(0)); time.sleep(1.5)")
    monkeypatch.setattr(gpu_day, "steps", lambda *_: [Step(name="one", command=show, limit=60)])
    beside = f"taskset -p $$ >{said}; echo $$ >>{said}; sleep 600"
    words = [
        str(tmp_path / "out"),
        "--work",
        str(tmp_path / "work"),
        "--beside",
        beside,
        "--step-cores",
        "1",
    ]
    before = os.sched_getaffinity(0)
    gpu_day.day(gpu_day.arguments(words))
    assert os.sched_getaffinity(0) == before
    mask, pid = said.read_text().splitlines()
    mine = {i for i in range(1024) if int(mask.split()[-1], 16) >> i & 1}
    assert mine and mine == before - {min(before)}
    assert str({min(before)}) in (tmp_path / "work" / "logs" / "one.log").read_text()
    assert not runs(pid)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only", "fly"], "--only fly names no step"),
        (["--limit", "fly=3"], "--limit names no step 'fly'"),
        (["--beside", "true", "--step-cores", "9999"], "--step-cores 9999 leaves no core"),
    ],
)
def test_bad_words_get_a_sentence(tmp_path, words, sentence):
    with pytest.raises(SystemExit, match=sentence):
        gpu_day.main([str(tmp_path / "out"), "--work", str(tmp_path), *words])


def test_wheels_are_packed_without_what_no_scene_names(tmp_path):
    spec = importlib.util.spec_from_file_location("gpu_wheels", ROOT / "scripts" / "gpu_wheels.py")
    gpu_wheels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu_wheels)
    path = tmp_path / "metaworld-1-py3-none-any.whl"
    files = {
        "metaworld/a.xml": '<texture file="../textures/used.png"/>',
        "metaworld/textures/used.png": "u" * 1000,
        "metaworld/textures/unused.png": "x" * 1000,
        "metaworld/meshes/unused.stl": "y",
    }
    record = "".join(f"{name},sha256=0,1\n" for name in files)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, "metaworld-1.dist-info/RECORD": record}.items():
            wheel.writestr(name, text)
    gpu_wheels.pack(path)
    with zipfile.ZipFile(path) as wheel:
        left = {name: wheel.read(name).decode() for name in wheel.namelist()}
    kept = {name: text for name, text in files.items() if "unused" not in name}
    assert left == {
        **kept,
        "metaworld-1.dist-info/RECORD": "".join(f"{name},sha256=0,1\n" for name in kept),
    }
