"""What a machine without network lacks for `scripts/gpu_day.sh`: wheels and OpenGL loaders.

    python scripts/gpu_wheels.py [--python 3.12]     into .whl/ and .gl/

For x86-64 Linux whose own Python holds torch, numpy, scipy, matplotlib, rich, safetensors,
tensorboard, etils, fsspec, zipp, cloudpickle and imageio. The wheels are packed again (LZMA, and
MetaWorld without the pictures and meshes that none of its scenes names), which saves half of their
bytes; nothing that is imported changes. Only the standard library is needed here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / ".whl"
LOADERS = ROOT / ".gl"
PACKAGES = (
    "metaworld==3.1.1",
    "mujoco==3.3.0",
    "glfw==2.11.0",
    "pyopengl==3.1.10",  # the simulator
    "gymnasium==1.4.0",
    "farama-notifications==0.0.6",  # its interface
    "tyro==1.0.17",
    "docstring-parser==0.18.0",
    "typeguard==4.6.1",  # the command line
    "av==18.1.0",  # videos
)
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
DEBS = ("libegl1", "libglvnd0", "libopengl0", "libgl1", "libglx0")  # the driver brings the rest
MOST_MB = 60
ASSETS = (".png", ".stl", ".obj")


def download(python: str) -> None:
    """Into an empty WHEELS."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        *platforms,
    ]
    command += ["--python-version", python, "--implementation", "cp", "-d", str(WHEELS), *PACKAGES]
    if subprocess.run(command).returncode:
        raise SystemExit("gpu_wheels: pip could not download the wheels; see its message above")


def unused(wheel: zipfile.ZipFile) -> set[str]:
    """Pictures and meshes whose names stand in no scene of the wheel."""
    named = set()
    for name in wheel.namelist():
        if name.endswith((".xml", ".py")):
            text = wheel.read(name).decode("utf-8", errors="replace")
            named |= {
                PurePosixPath(found).name
                for found in re.findall(r"[\w./-]+\.(?:png|stl|obj)", text)
            }
    return {
        n for n in wheel.namelist() if n.endswith(ASSETS) and PurePosixPath(n).name not in named
    }


def pack(path: Path) -> None:
    """The wheel again, smaller; its RECORD names the files that are left."""
    draft = path.with_suffix(".tmp")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(draft, "w", zipfile.ZIP_LZMA) as new:
        dropped = unused(old) if path.name.startswith("metaworld-") else set()
        for item in old.infolist():
            if item.filename in dropped:
                continue
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                lines = data.decode().splitlines(keepends=True)
                data = "".join(line for line in lines if line.split(",")[0] not in dropped).encode()
            item.compress_type = zipfile.ZIP_LZMA
            new.writestr(item, data)
    draft.replace(path)


def loaders() -> None:
    """Debian's packages of OpenGL's loaders, where apt can be asked; else a sentence."""
    if not shutil.which("apt-get"):
        names = ", ".join(DEBS)
        print(f"no apt-get here: put {names} of Debian into .gl/ unless the machine has EGL")
        return
    shutil.rmtree(LOADERS, ignore_errors=True)
    LOADERS.mkdir()
    lists = Path("/tmp/gpu-wheels-apt")
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    amd64 = (
        "-oAPT::Architecture=amd64",
        "-oAPT::Architectures=amd64",
        f"-oDir::State::Lists={lists}",
    )
    for words in (("update", "-qq"), ("download", "-qq", *DEBS)):
        done = subprocess.run(
            ["apt-get", *amd64, *words], cwd=LOADERS, capture_output=True, text=True
        )
        if done.returncode:
            print(
                f"apt-get {words[0]} failed, so .gl/ lacks something: {done.stderr.strip()[-300:]}"
            )


def megabytes(paths: list[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python")
    download(parser.parse_args().python)
    for path in sorted(WHEELS.glob("*.whl")):
        before = megabytes([path])
        pack(path)
        print(f"{before:6.1f} -> {megabytes([path]):5.1f} MiB  {path.name}")
    loaders()
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    tree = megabytes([ROOT / name for name in listed if (ROOT / name).is_file()])
    carried = megabytes([*WHEELS.glob("*.whl"), *LOADERS.glob("*.deb")])
    whole = carried + tree
    print(f".whl and .gl {carried:.1f} MiB, the checkout {tree:.1f} MiB, together {whole:.1f}")
    if carried + tree > MOST_MB:
        raise SystemExit(f"gpu_wheels: more than {MOST_MB} MiB; carry fewer packages")


if __name__ == "__main__":
    main()
