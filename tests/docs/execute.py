"""Executes what README.md and docs/*.md tell their readers to type, at the smallest size.

    python -m tests.docs.execute [--keep FOLDER] [PAGE ...]      such as data.md; default: all

Each page has a folder of its own that holds nothing but what the page takes for granted (RUN,
PLACE, ...), made once. Commands are run there one after the other, as they stand on the page but
for names that stand for something and for sizes (`as_run`). What cannot run on a laptop is in
ELSEWHERE, with the reason. Exit code 1 if a command fails.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import PAGES, ROOT, commands_of
from tests.support import local_hub
from wamrl.recipes.find import listed

ELSEWHERE = {  # how a command begins -> why it is not executed here
    "bash scripts/quickstart.sh": "sets up over the network; its verb is executed",
    "bash scripts/test.sh": "is the test command itself",
    "source .venv": "this runs in it",
    "export PYTHONPATH": "this has set it",
    "pip install": "needs a package registry; tests/test_wheel.py installs",
    "python -m benchmarks [": "measures for hours; tests/benchmarks runs the small ones",
    "python benchmarks/feature_sigma.py": "a measurement of an hour",
    "python benchmarks/render.py": "a measurement of minutes",
    "python benchmarks/experts.py": "a measurement of minutes",
    "bash benchmarks/quickstart_study.sh": "a measurement of hours",
    "bash scripts/libero.sh": "LIBERO needs an environment and assets of its own",
    "wamrl quickstart libero": "LIBERO needs an environment and assets of its own",
    "wamrl sft wan22-5b": "needs published weights and a GPU",
    "wamrl embed wan22-5b": "needs published weights",
    "wamrl eval --base RUN --rerun": "rerun needs numpy 2; tests/report/test_rerun_file.py",
    "torchrun --nnodes": "needs four machines",
    "ray start": "needs a cluster; tests/pool/test_ray.py starts one",
    "wamrl train RECIPE --base RUN --pool.backend ray": "needs a cluster; as above",
    "python scripts/gpu_wheels.py": "needs a package registry",
    "bash scripts/gpu_day.sh": "needs a GPU",
    "python -m benchmarks.gpu_day": "a measurement of minutes; tests/benchmarks/test_gpu_day.py",
}
STUDY = "tests.support.tiny_study:study"
WORDS = {
    "RECIPE": "point",
    "S": "0",
    "VERB": "sft",
    "study NAME": f"study {STUDY}",
    "FILE": "lift/ph/image_v15.hdf5",
}
ON_PAGE = {  # words that mean something else there
    "bring-your-own.md": {"RUN": "runs/push"},
    "data-hdf5.md": {"RECIPE": "lift"},
    "report.md": {"FOLDER": "runs/study-NAME"},
}
ONE_CELL = "--smoke --jobs 1 --only"
SMALLER = (  # pattern -> replacement, in turn
    (r"^(wamrl (demos|sft|train|eval|quickstart|compare-rewards)\b.*)$", r"\1 --smoke"),
    (r"^(wamrl (?:sft|train|eval|quickstart)\b.*)$", r"\1 --ranks 1"),
    (r"^(wamrl data convert .*)$", r"rm -rf DST && \1"),
    (r" RUN RUN \.\.\.$", " RUN runs/NAME"),
    (r"^(wamrl sft my_lab.push:my_recipe)(?!.*--data)", r"\1 --data demos"),
    (r"--data PLACE (--state-keys.*)=front", r"--data openpi \1=top"),  # as `point` calls it
    (r" --threads 1(?=.* --threads 1)", ""),
    (r" --ranks 1(?=.* --ranks 1)", ""),
    (r" --jobs 2 --only '(\w[\w-]*)/.*'", rf" {ONE_CELL} '\1/base/*'"),
    (r"^(wamrl study metaworld)$", rf"\1 {ONE_CELL} 'hammer/base/*'"),
    (r"^(wamrl study robosuite)$", rf"\1 {ONE_CELL} 'lift/base/*'"),
    (rf"^(wamrl study {STUDY})$", rf"\1 {ONE_CELL} 'near/wamrl/*'"),
    (rf"^(wamrl study {STUDY} .*--report-only)$", r"\1 --smoke"),
    (r"nproc-per-node 8(.*)", r"nproc-per-node 2\1 --smoke"),
    (r"^(python benchmarks/exploration.py .*)", r"\1 2"),
    (r"^(python -m benchmarks.language .*)", r"\1 --episodes 4"),
    (r"^(wamrl serve .*)(?<!--help)$", r"\1 --port 8791"),
)
MAKES = re.compile(r"wamrl (demos|sft|quickstart|embed) ")
FIRST = {  # what a command needs that the page does not show
    "wamrl compare-rewards press-once": (
        f"wamrl study metaworld --out STUDY {ONE_CELL} 'press-once/base/*'"
    ),
    "wamrl sft quickstart --model": "wamrl demos quickstart --smoke",
    "wamrl eval ml45": "wamrl sft ml45 --smoke --ranks 1",
    "wamrl sft mt10 --model": "wamrl embed mt10 --encoder FOLDER --file text.safetensors",
}


@dataclass(frozen=True)
class Outcome:
    """One command of a page."""

    page: str
    command: str
    run_as: str = ""
    seconds: float = 0.0
    why_not: str = ""  # where it was not executed
    said: str = ""  # where it failed


def elsewhere(command: str) -> str:
    """Why the command is not executed here; "": it is."""
    return next((why for begin, why in ELSEWHERE.items() if command.startswith(begin)), "")


def as_run(command: str, page: str, here: Path) -> str:
    """The command at its smallest, about what lies in `here`."""
    for name, meant in (WORDS | ON_PAGE.get(page, {})).items():
        command = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", meant, command)
    for pattern, smaller in SMALLER:
        command = re.sub(pattern, smaller, command)
    words = command.split()
    recipe = next((word for word in words[1:] if word in listed()), "")
    made = sorted((here / "runs").glob(f"{recipe}-*")) if recipe else []
    if made:
        command = re.sub(r"(?<!\w)(?:runs/)?RUN2(?!\w)", f"runs/{made[-1].name}", command)
        command = re.sub(r"(?<!\w)(?:runs/)?RUN(?!\w)", f"runs/{made[0].name}", command)
    for shown in re.findall(r"runs/(\S+)-(?:TIME|\.\.\.)", command):
        newest = sorted((here / "runs").glob(f"{shown}-*"))[-1:]
        for run in newest:
            command = re.sub(rf"runs/{shown}-(?:TIME|\.\.\.)", f"runs/{run.name}", command)
    return command


# ---- what the pages take for granted


def make_runs(root: Path) -> None:
    """By the verbs themselves."""
    bash("wamrl quickstart point --smoke --ranks 1 --eval.every 1 && mv runs/point-* RUN", root)
    bash("wamrl demos point --data.episodes 12 --data.heldout 2 && mv runs/point-* made", root)
    bash("wamrl data convert made PLACE --fps 10 --image", root)
    bash(f"wamrl study {STUDY} {ONE_CELL} 'near/wamrl/*' --out study", root)


def make_encoder(root: Path) -> None:
    """A text encoder with random weights."""
    from tests.support.text_encoders import save_encoder

    save_encoder(root / "FOLDER", "t5", ["push", "pull", "open", "close", "the"])


def make_sets(root: Path) -> None:
    """Sets as other people have them, from PLACE."""
    from tests.support.hdf5_files import aloha, robomimic
    from tests.support.lerobot_made import make_foreign, rename_features, write_v21
    from wamrl.data.sources import open_dataset

    robomimic(root / "FILE.hdf5", lengths=(40,) * 8)
    aloha(root / "ALOHA", lengths=(40,) * 4, jpeg=True)
    episodes = list(open_dataset(root / "PLACE").episodes())
    write_v21(root / "LEROBOT21", episodes, views=("top",))
    shutil.copytree(root / "PLACE", root / "openpi")
    make_foreign(root / "openpi")
    rename_features(
        root / "openpi",
        observation__images__top="image",
        observation__state="state",
        action="actions",
    )


NAMES = {  # as a page calls it -> what it is, below the folder of `everything`
    "RUN": "RUN",
    "runs/NAME": "RUN",
    "runs/A": "RUN",
    "runs/B": "RUN",
    "runs/RUN": "RUN",
    "runs/study-NAME": "study",
    "FOLDER": "FOLDER",
    "PLACE": "PLACE",
    "SET": "PLACE",
    "SRC": "PLACE",
    "LEROBOT": "PLACE",
    "LEROBOT21": "LEROBOT21",
    "lift/ph/image_v15.hdf5": "FILE.hdf5",
    "ALOHA": "ALOHA",
    "openpi": "openpi",
}


def furnish(page: Path, root: Path, here: Path) -> None:
    """Copy into `here` what the page names, from `root`."""
    text = page.read_text(encoding="utf-8")
    for name, what in NAMES.items():
        source, target = root / what, here / name
        if not re.search(rf"\b{name}\b", text) or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    if "benchmarks" in text:
        (here / "benchmarks").symlink_to(ROOT / "benchmarks")
    for study in (ROOT / "docs" / "study").iterdir():
        if f"docs/study/{study.name}" in text:
            shutil.copytree(study, here / "docs/study" / study.name)
    if "wamrl sft my_lab.push" in text:
        _own_environment(here)


def _own_environment(here: Path) -> None:
    """my_lab/push.py, its demonstrations and a model of them, as bring-your-own.md says."""
    text = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    module = [block for block in blocks if "class Push(" in block or "def record(" in block]
    (here / "my_lab").mkdir()
    (here / "my_lab" / "push.py").write_text("\n".join(module))
    recorded = "from my_lab.push import Path, record; record(Path('demos'), 12)"
    bash(f'PYTHONPATH="$PYTHONPATH:." python -c "{recorded}" && cp -r demos DATASET', here)
    bash("wamrl sft my_lab.push:my_recipe --data demos --smoke && mv runs/push-* runs/push", here)


# ---- running


def bash(command: str, here: Path, **env: str) -> None:
    """RuntimeError with the end of what it said if it fails."""
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=here,
        env=_environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stdout[-2000:]}")


def serve(command: str, here: Path, **env: str) -> None:
    """A server, until it listens; RuntimeError if it does not, or does not end in peace."""
    process = subprocess.Popen(
        shlex.split(command),
        cwd=here,
        env=_environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    for line in process.stdout:
        said += line
        if "ws://" in line:
            process.send_signal(signal.SIGINT)
    if process.wait() not in (0, 130) or "ws://" not in said:
        raise RuntimeError(f"exit code {process.returncode}: {said[-2000:]}")


def _environment() -> dict[str, str]:
    here = str(Path(sys.executable).parent)
    more = {"PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return os.environ | {"MUJOCO_GL": "egl", "PYTHONUNBUFFERED": "1"} | more


def outcomes(
    page: Path, root: Path, here: Path, before: dict[str, str], **env: str
) -> Iterator[Outcome]:
    """Of every command of the page, in turn. before: what was executed, and on which page; what
    makes no run that the page goes on with is not executed again.
    """
    here.mkdir(parents=True)
    furnish(page, root, here)
    for command in commands_of(page):
        why = elsewhere(command)
        if why:
            yield Outcome(page.name, command, why_not=why)
            continue
        for begin, needed in FIRST.items():
            if command.startswith(begin):
                bash(as_run(needed, page.name, here), here, **env)
        words = as_run(command, page.name, here)
        if words in before and "runs/" not in words and not MAKES.match(words):
            yield Outcome(page.name, command, why_not=f"executed for {before[words]}")
            continue
        before[words] = page.name
        began = time.monotonic()
        said = ""
        try:
            run = serve if words.startswith("wamrl serve") and "--help" not in words else bash
            run(words, here, **env)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            said = str(error)
        yield Outcome(page.name, command, words, time.monotonic() - began, said=said)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="such as data.md; default: all")
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    asked = parser.parse_args(argv)
    pages = [page for page in PAGES if not asked.pages or page.name in asked.pages]
    with tempfile.TemporaryDirectory() as temporary, local_hub.serving() as hub:
        root = asked.keep or Path(temporary)
        made = root / "made"
        if not made.exists():
            made.mkdir(parents=True)
            make_runs(made)
            make_sets(made)
            make_encoder(made)
        env = local_hub.environment(hub, root / "cache")
        hub.add("models/owner/name", _files(made / "RUN" / "checkpoints" / "final"))
        hub.add("datasets/lerobot/pusht", _files(made / "PLACE"))
        results = []
        before: dict[str, str] = {}
        for page in pages:
            shutil.rmtree(root / page.stem, ignore_errors=True)
            for outcome in outcomes(page, made, root / page.stem, before, **env):
                results.append(outcome)
                _print(outcome)
    failed = [outcome for outcome in results if outcome.said]
    away = [outcome for outcome in results if outcome.why_not]
    ran = len(results) - len(failed) - len(away)
    print(f"{ran} commands executed, {len(failed)} failed, {len(away)} not executed here")
    return 1 if failed else 0


def _files(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _print(o: Outcome) -> None:
    if o.why_not:
        print(f"{o.page}: not here: {o.command} ({o.why_not})", flush=True)
        return
    print(f"{o.page}: {'FAILED' if o.said else 'ok'} {o.seconds:.0f} s: {o.run_as}", flush=True)
    if o.said:
        print(o.said, flush=True)


if __name__ == "__main__":
    sys.exit(main())
