"""What is installed from a wheel is whole: it runs without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as pip unpacks it."""
    pytest.importorskip("hatchling", reason="needs pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, where: Path, *words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_away_from_the_repository(installed, tmp_path):
    code = "import wamrl; print(wamrl.__file__)"
    assert str(installed) in run(installed, tmp_path, "-c", code)
    wamrl = ("-m", "wamrl")
    assert run(installed, tmp_path, *wamrl, "--version").startswith("wamrl 0.")
    run(installed, tmp_path, *wamrl, "sft", "point", "--smoke", "--ranks", "1")
    (made,) = (tmp_path / "runs").iterdir()
    run(installed, tmp_path, *wamrl, "report", str(made))
    assert (made / "report.html").is_file()


def test_it_holds_the_library_and_nothing_else(installed):
    top = {path.name.partition("-")[0] for path in installed.iterdir()}
    assert top == {"wamrl"}
