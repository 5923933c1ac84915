"""The README's two commands: they exist, they parse,
CI runs the same one, and setup says clearly what is missing.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.sbatch"))
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), *EXAMPLES, ROOT / ".ci" / "run"]
COMMANDS = ("bash scripts/quickstart.sh", "bash scripts/test.sh")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse(script: Path):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert command in readme
        assert (ROOT / command.split()[1]).is_file()


def test_docs_name_files_that_exist():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = [
        (p.name, f)
        for p in pages
        for f in re.findall(r"`((?:wamrl|tests|scripts)/[\w/]+\.(?:py|sh))`", p.read_text())
    ]
    assert named and not [x for x in named if not (ROOT / x[1]).exists()]


def test_the_job_for_several_nodes_runs_and_goes_on_when_it_is_started_again(tmp_path, point_run):
    """On one rank of this machine (`tests/runtime/test_launch.py` has two): `srun` runs what
    follows, `scontrol` knows one host. SLURM itself is not here.
    """
    if not (ROOT / ".venv").is_dir():
        pytest.skip("needs .venv")
    for name, text in {"srun": 'exec "$@"', "scontrol": "echo localhost"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_NODELIST": "localhost",
        "OUT": str(tmp_path / "out"),
        "OMP_NUM_THREADS": "1",
    }
    script = next(p for p in EXAMPLES if p.name == "many_nodes.sbatch")
    for _ in range(2):  # the second job is the first one, put back into the queue
        command = ["bash", str(script), "point", str(point_run), "--smoke"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    (run,) = (tmp_path / "out").iterdir()
    assert len(list((run / "checkpoints").glob("step-*"))) == 2 and (run / "summary.json").is_file()


def test_ci_runs_the_readmes_test_command():
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_scripts_keep_what_python_compiles():
    """Though a container says otherwise: nothing is compiled while installing."""
    if not (ROOT / ".venv").is_dir():
        pytest.skip("needs .venv")
    command = "source scripts/env.sh; python -c 'import sys; print(sys.dont_write_bytecode)'"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the repository's setup and an environment with few commands,
    none of them privileged.
    """
    for name in ("pyproject.toml", "scripts/setup.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for tool in (
        "bash",
        "dirname",
        "cat",
        "sha256sum",
        "cut",
        "rm",
        "touch",
        "mktemp",
        "tail",
        "grep",
        "env",
    ):
        (bin_dir / tool).symlink_to(shutil.which(tool))
    fake(bin_dir / "id", "echo 1000")
    fake(bin_dir / "sudo", "exit 1")
    fake(bin_dir / "apt-get", "echo 'apt-get must not be called' >&2; exit 99")
    return tmp_path, {"PATH": str(bin_dir), "HOME": str(tmp_path)}


def fake(path: Path, body: str) -> None:
    path.write_text(f"#!{shutil.which('bash')}\n{body}\n")
    path.chmod(0o755)


def setup(where: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    command = ["bash", "scripts/setup.sh"]
    return subprocess.run(
        command,
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_image_has_the_gl_packages_of_the_setup():
    setup_script = (ROOT / "scripts" / "setup.sh").read_text()
    names = re.search(r'^GL_PACKAGES="(.*)"', setup_script, re.M)[1]
    assert f" {names} " in " ".join((ROOT / "Dockerfile").read_text().split())


def test_setup_without_python_says_so(bare):
    done = setup(*bare)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no Python 3.11, 3.12 or 3.13 found" in done.stderr


def test_setup_refuses_an_old_python(bare):
    where, env = bare
    fake(where / "bin" / "python3", "exit 1")
    done = setup(where, env | {"PYTHON": "python3"})
    assert done.returncode == 1 and "PYTHON=python3 is not a Python" in done.stderr


def test_setup_without_privileges_names_the_gl_packages(bare):
    """A user without root or sudo, on a machine without GL:
    one line, before anything is downloaded.
    """
    where, env = bare
    venv_python = where / ".venv" / "bin" / "python"
    venv_python.parent.mkdir(parents=True)
    (where / ".venv" / "pyvenv.cfg").write_text("")
    # a venv whose Python is fine,
    # but finds no GL library (the only thing setup feeds it on standard input here)
    fake(
        venv_python,
        (
            'if [ "$1" = - ]; then exit 1; elif [ "$1" = -m ]; then exit 0; fi; exec '
            f'{sys.executable} "$@"'
        ),
    )
    done = setup(where, env)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "apt-get install libegl1" in done.stderr and "must not be called" not in done.stderr
