"""The machine that a number was measured on, in words that name no host."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib import metadata, util
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / ".peers"  # what peers.sh installs, apart from our own environment
PACKAGES = ("numpy", "gymnasium", "mujoco", "metaworld")


def describe() -> dict[str, str | int | float]:
    """CPU, cores, RAM, accelerator, versions, date and commit."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {name: metadata.version(name) for name in PACKAGES if util.find_spec(name)}
    peers = (
        {d.metadata["Name"]: d.version for d in metadata.distributions(path=[str(PEERS)])}
        if PEERS.is_dir()
        else {}
    )
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "ram_gb": round(ram_bytes() / 1e9),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **versions,
        **{name: v for name, v in peers.items() if name == "stable_baselines3"},
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
    }


def slug() -> str:
    """A folder name for this kind of machine, such as `amd-epyc-7763-2-cores`."""
    import torch

    parts = [
        re.sub(r"\(.*?\)|processor|cpu|@.*|\d+-core", "", cpu_model(), flags=re.I),
        f"{cores()} cores",
    ]
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def cpu_model() -> str:
    """The name that the processor gives itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def commit() -> str:
    """Short hash of the checkout, with `+` when its code differs from it."""

    def git(*args: str) -> str:
        try:
            return subprocess.run(
                ["git", *args], cwd=ROOT, capture_output=True, text=True
            ).stdout.strip()
        except FileNotFoundError:  # a machine without git
            return ""

    if named := os.environ.get("WAMRL_COMMIT"):  # of a copy without its history
        return named
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "wamrl", "benchmarks/*.py")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")
