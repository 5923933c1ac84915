"""Everything that only a machine with a GPU can tell, in one command and a bounded time.

    python -m benchmarks.gpu_day OUT [--minutes 25] [--only NAME ...] [--beside COMMAND] [--dry-run]

Steps run in order, each in a process group of its own with its own time limit.
After each, OUT/results.json is replaced (what ran, how it ended, its numbers), and so is
OUT/files.tar.gz (logs, metrics and summaries): whatever ends this command loses one step at most.
OUT gets a few flat files; runs and study are in --work, where a later call with other --only goes
on. The parent needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = "results.json"
FILES = "files.tar.gz"
MODELS = "models-{}.tar"  # of the study's bases, with --models
KEPT = (  # of runs and of the study
    *("summary.json", "metrics.jsonl", "config.json", "log.txt"),
    *("study.json", "report.md", "*.csv"),
)
MOST_BYTES = 15 << 20  # of one file in OUT
PATIENCE_S = 10.0  # to end after SIGTERM
LEAST_S = 5.0  # a step is not begun with less
RESERVE_S = 10.0  # for the last writing


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and where it writes its numbers, if it does."""

    name: str
    command: tuple[str, ...]
    limit: float  # seconds
    needs_gpu: bool = True  # False: it does not get to see one
    bounded: bool = True  # False: to be stopped at its limit is how it usually ends


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("out", type=Path, help="folder of the results")
    p.add_argument(
        "--minutes",
        type=float,
        default=25.0,
        help="for everything; steps that no longer fit are left out",
    )
    p.add_argument(
        "--only",
        nargs="*",
        default=["*"],
        metavar="NAME",
        help="steps, as globs; --list names them",
    )
    p.add_argument(
        "--limit", nargs="*", default=[], metavar="NAME=SECONDS", help="other limits than the usual"
    )
    p.add_argument(
        "--work", type=Path, help="folder of runs, study and logs (default: a new temporary one)"
    )
    p.add_argument(
        "--beside", metavar="COMMAND", help="a shell command for the cores that the steps leave"
    )
    p.add_argument(
        "--step-cores",
        type=int,
        default=4,
        help="cores that the steps get beside --beside; else all",
    )
    p.add_argument(
        "--base",
        type=Path,
        help="a run folder to start the online runs from (default: made by the first)",
    )
    p.add_argument(
        "--iterations", type=int, default=12, help="of the online runs, 256 episodes each"
    )
    p.add_argument("--study", default="metaworld", help="as of `wamrl study`")
    p.add_argument("--study-out", type=Path, help="the study's folder (default: study in --work)")
    p.add_argument(
        "--study-only", default="*", metavar="GLOB", help="cells, as of `wamrl study --only`"
    )
    p.add_argument("--study-gpu", action="store_true", help="let the cells use the GPU")
    p.add_argument(
        "--jobs", type=int, default=0, help="cells of the study at once; 0: one per core"
    )
    p.add_argument(
        "--models",
        action="store_true",
        help="also bring home the bases of the study, in up to 4 files",
    )
    p.add_argument(
        "--no-simulator", action="store_true", help="the point mass wherever MetaWorld is meant"
    )
    p.add_argument(
        "--dry-run", action="store_true", help="tiny sizes and the point mass, on whatever is there"
    )
    p.add_argument("--list", action="store_true", help="name the steps and run none")
    return p.parse_args(words)


def steps(o: argparse.Namespace, work: Path, cores: int) -> list[Step]:
    """All, in order; `{json}` in a command is the file that it shall write."""
    python = sys.executable
    quick = ("--quick",) if o.dry_run else ()
    point = o.dry_run or o.no_simulator
    usual = dict(line.split("=", 1) for line in o.limit)

    def module(name: str, *words: object) -> tuple[str, ...]:
        return (python, "-m", f"benchmarks.{name}", *quick, "--out", "{json}", *map(str, words))

    def online(name: str, ranks: int) -> tuple[str, ...]:
        small = ("--quick",) if point and not o.dry_run else ()
        base = ("--base", o.base) if o.base and not point else ()
        iterations = 2 if point else o.iterations
        words = (
            *small,
            "--work",
            work / "online",
            "--name",
            name,
            "--ranks",
            ranks,
            "--iterations",
            iterations,
        )
        return module("online_run", *words, *base)

    study = (python, "-m", "wamrl.cli", "study", "point" if point else o.study)
    study += ("--out", str(o.study_out or work / "study"), "--jobs", str(o.jobs))
    study += ("--smoke", "--only", "point-1/actor_success/0") if point else ("--only", o.study_only)
    profile = ("--recipe", "point", "--groups", 8) if point else ()
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
    torchrun += ("--nproc-per-node", "1", *module("one_rank")[1:])
    made = [
        Step(name="parity", command=module("parity"), limit=90),
        Step(name="mfu", command=module("world_training"), limit=120),
        Step(name="mfu-big", command=module("world_training", "--big"), limit=90),
        Step(name="mfu-large", command=module("world_training", "--large"), limit=150),
        Step(name="loop", command=module("compiled_loop"), limit=150),
        Step(name="profile", command=module("profile_iteration", *profile), limit=180),
        Step(name="one-rank", command=torchrun, limit=120),
        Step(
            name="online-cpu",
            command=online("cpu", 1 if point else cores),
            limit=300,
            needs_gpu=False,
        ),
        Step(name="online-gpu", command=online("gpu", 1), limit=300),
        Step(name="study", command=study, limit=1e9, needs_gpu=o.study_gpu, bounded=False),
    ]
    if (
        o.dry_run
    ):  # what is meant for a GPU's memory, and a second run on the same processor, tell nothing
        made = [step for step in made if step.name not in ("mfu-big", "mfu-large", "online-gpu")]
    names = ", ".join(step.name for step in made)
    if unknown := [name for name in usual if name not in {step.name for step in made}]:
        raise ValueError(f"--limit names no step {unknown[0]!r}: choose among {names}")
    chosen = [s for s in made if any(fnmatchcase(s.name, glob) for glob in o.only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(o.only)} names no step: choose among {names}")
    return [Step(**{**vars(s), "limit": float(usual.get(s.name, s.limit))}) for s in chosen]


def environment(gpu: bool) -> dict[str, str]:
    """For a step: one that does not need the GPU does not see it. Ranks use the loopback device."""
    there = {
        "PYTHONUNBUFFERED": "1",
        "MUJOCO_GL": "egl",
        "NCCL_SOCKET_IFNAME": "lo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = there | os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return found if gpu else found | {"CUDA_VISIBLE_DEVICES": ""}


def stop(process: subprocess.Popen) -> None:
    """End a process and all that it has started and not put elsewhere: SIGTERM, then SIGKILL."""
    for how, patience in ((signal.SIGTERM, PATIENCE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    # the leader has gone, perhaps before the others
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(
    command: list[str], log: Path, env: dict[str, str], cores: set[int]
) -> Iterator[subprocess.Popen]:
    """A command in its own process group on some cores; the group is gone when the block is left.

    It stays in our session, so that what ends that ends the command, too.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # a child has those of its parent
    try:
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                process_group=0,
            )
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield process
    finally:
        stop(process)


def run(step: Step, left: float, logs: Path, cores: set[int]) -> dict:
    """Do it within its limit and what is left; how it ended, and its numbers."""
    limit = min(step.limit, left)
    record = {"limit_s": round(limit, 1), "command": shlex.join(step.command)}
    if limit < min(step.limit, LEAST_S):
        return record | {"outcome": "no time was left", "seconds": 0.0}
    numbers = logs / f"{step.name}.json"
    log = logs / f"{step.name}.log"
    numbers.unlink(missing_ok=True)
    command = [word.replace("{json}", str(numbers)) for word in step.command]
    begin = time.monotonic()
    with running(command, log, environment(step.needs_gpu), cores) as process:
        try:
            code = process.wait(limit)
            outcome = f"failed (exit code {code})" if code else "done"
        except subprocess.TimeoutExpired:
            outcome = "stopped at its limit"
    record |= {"outcome": outcome, "seconds": round(time.monotonic() - begin, 1)}
    if numbers.is_file():
        with contextlib.suppress(ValueError):  # half written when it was stopped
            record["result"] = json.loads(numbers.read_text(encoding="utf-8"))
    if outcome != "done" or "result" not in record:
        record["log"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
    return record


def replaced(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that it is either the old one or the new one."""
    draft = path.with_suffix(".tmp")
    write(draft)
    draft.replace(path)


def pack(o: argparse.Namespace, work: Path) -> None:
    """Logs and the small files of all runs; not the few that are large."""
    study = o.study_out or work / "study"
    found = [(p, f"logs/{p.name}") for p in sorted((work / "logs").iterdir())]
    for name, root in (("online", work / "online"), ("study", study)):
        files = {p for pattern in KEPT for p in root.rglob(pattern) if p.is_file()}
        found += [(p, f"{name}/{p.relative_to(root)}") for p in sorted(files)]
    found = [(p, name) for p, name in found if p.stat().st_size < MOST_BYTES // 4]

    def write(draft: Path) -> None:
        with tarfile.open(draft, "w:gz") as tar:
            for path, name in found:
                with contextlib.suppress(FileNotFoundError):  # a cell that tidies up
                    tar.add(path, name)

    replaced(o.out / FILES, write)


def pack_models(o: argparse.Namespace, work: Path) -> None:
    """The study's finished bases with their demonstrations, so that arms can go on elsewhere."""
    study = o.study_out or work / "study"
    bases = [p.parent for p in sorted(study.glob("*/base/*/summary.json"))]
    bins: list[tuple[int, list[Path]]] = []
    for base in bases:
        size = sum(p.stat().st_size for p in base.rglob("*") if p.is_file()) + (1 << 16)
        if bins and bins[-1][0] + size <= MOST_BYTES:
            bins[-1] = (bins[-1][0] + size, [*bins[-1][1], base])
        elif size <= MOST_BYTES and len(bins) < 4:
            bins.append((size, [base]))
    for number, (_, folders) in enumerate(bins, 1):

        def write(draft: Path, folders: list[Path] = folders) -> None:
            with tarfile.open(draft, "w") as tar:
                for folder in folders:
                    tar.add(folder, f"study/{folder.relative_to(study)}")

        replaced(o.out / MODELS.format(number), write)


def save(o: argparse.Namespace, work: Path, results: dict) -> None:
    """Everything so far, in --work and in OUT."""
    text = json.dumps(results, indent=1) + "\n"
    for folder in (work, o.out):
        replaced(folder / RESULTS, lambda draft: draft.write_text(text, encoding="utf-8"))
    pack(o, work)


def earlier(work: Path, cores: int) -> dict:
    """What former calls with this --work have found."""
    if (work / RESULTS).is_file():
        return json.loads((work / RESULTS).read_text(encoding="utf-8"))
    return {"commit": os.environ.get("WAMRL_COMMIT", ""), "cores": cores, "steps": {}}


def shares(o: argparse.Namespace) -> tuple[set[int], set[int]]:
    """Cores of the steps and of --beside; ValueError if there are too few for both."""
    everything = sorted(os.sched_getaffinity(0))
    if not o.beside:
        return set(everything), set()
    if not 0 < o.step_cores < len(everything):
        raise ValueError(
            f"--step-cores {o.step_cores} leaves no core: this machine gives us {len(everything)}"
        )
    return set(everything[: o.step_cores]), set(everything[o.step_cores :])


def day(o: argparse.Namespace) -> dict:
    """All steps that fit; the results."""
    begin = time.monotonic()
    cores, others = shares(o)
    work = (o.work or Path(tempfile.mkdtemp(prefix="gpu-day-"))).resolve()
    todo = steps(o, work, len(cores))
    logs = work / "logs"
    for folder in (o.out, logs):
        folder.mkdir(parents=True, exist_ok=True)
    results = earlier(work, len(cores))
    with contextlib.ExitStack() as stack:
        if o.beside:
            beside = ["bash", "-c", o.beside]
            stack.enter_context(
                running(beside, logs / "beside.log", environment(gpu=False), others)
            )
        for step in todo:
            left = 60 * o.minutes - RESERVE_S - (time.monotonic() - begin)
            print(f"{step.name}: at most {min(step.limit, left):.0f} s", flush=True)
            record = run(step, left, logs, cores)
            if not step.bounded and record["outcome"] == "stopped at its limit":
                record["outcome"] = "stopped when the time was over"
            results["steps"][step.name] = record
            save(o, work, results)
            print(f"{step.name}: {record['outcome']}, {record['seconds']} s", flush=True)
            for line in record.get("result", {}).get("rows", []):
                print(
                    f"  {line['what']}: {line['ours'][1]:.4g} {line['unit']}  {line['note']}",
                    flush=True,
                )
    if o.models:
        pack_models(o, work)
    save(o, work, results)
    return results


def main(words: list[str] | None = None) -> None:
    """Exit code 1 if a step has failed or was stopped at its limit; all is written all the same."""
    o = arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it has started, too
    try:
        if o.list:
            for step in steps(o, Path("WORK"), 1):
                limit = f"at most {step.limit:.0f} s" if step.bounded else "what is left"
                print(f"{step.name:<12} {limit}  {shlex.join(step.command)}")
            return
        results = day(o)
    except ValueError as error:
        raise SystemExit(f"gpu_day: error: {error}") from error
    bad = [
        name
        for name, r in results["steps"].items()
        if r["outcome"].startswith(("failed", "stopped at"))
    ]
    if bad:
        raise SystemExit(f"gpu_day: not done: {', '.join(bad)}; see {o.out / RESULTS}")


if __name__ == "__main__":
    main()
