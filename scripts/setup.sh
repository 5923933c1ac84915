#!/usr/bin/env bash
# Sets up everything wamrl needs, in .venv of this repository. Safe to repeat: does nothing when nothing has changed.
#   bash scripts/setup.sh
# Settings, all optional:
#   PYTHON=python3.12        the interpreter to use (3.11 to 3.13)
#   WAMRL_SYSTEM_SITE=1      let .venv see the packages of that interpreter, e.g. a GPU machine's own torch
#   WAMRL_SKIP_GL=1          go on without OpenGL (nothing can be rendered)
#   WAMRL_ALLOW_CUDA=1       on a machine without a GPU, accept torch's CUDA build (several GB) if nothing else is found
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH="torch==2.13.0"  # the version we develop with; any 2.11 <= torch < 3 that is already there is kept
TORCH_RANGE="torch>=2.11,<3"
CPU_INDEX="https://download.pytorch.org/whl/cpu"
EXTRAS="metaworld,gym,data,rewards,dev"
GL_PACKAGES="libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libopengl0"
PIP="-m pip --disable-pip-version-check"
INSTALL="$PIP install -q --no-compile"  # Python compiles what it imports; compiling all of it here takes a minute

say() { echo "setup: $*"; }
die() { echo "setup: error: $*" >&2; exit 1; }

# ---- privileges: how to run apt-get, if at all
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
can_apt() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}
apt_install() {
    local log; log=$(mktemp)
    say "installing $* by apt"
    if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2; rm -f "$log"
        die "apt could not install $*; install them yourself and run this again"
    fi
    rm -f "$log"
}

# ---- Python
supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13"
        echo "$PYTHON"; return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if supported "$candidate"; then echo "$candidate"; return; fi
    done
    die "no Python 3.11, 3.12 or 3.13 found; install one (e.g. apt-get install python3 python3-venv) or name it with PYTHON="
}
make_venv() {
    local python version
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        can_apt || die "Python $version lacks its venv module; ask an administrator for: apt-get install python$version-venv"
        apt_install "python$version-venv"
    fi
    say "creating .venv with Python $version"
    "$python" -m venv ${WAMRL_SYSTEM_SITE:+--system-site-packages} .venv || die "could not create .venv with $python"
}

# ---- OpenGL for the simulator's cameras
gl_found() {
    .venv/bin/python - 2>/dev/null <<'PY'
import ctypes, glob
for name in ("libEGL.so.1", "libOpenGL.so.0", "libGL.so.1"):
    ctypes.CDLL(name)
folders = ("/usr/lib", "/usr/lib64", "/usr/lib/*")  # not recursive: /usr/lib holds links that go round in circles
drivers = [f for d in folders for f in glob.glob(f"{d}/libEGL_*.so.0")]  # Mesa's or the GPU vendor's
assert any("nvidia" in d for d in drivers) or any(glob.glob(f"{d}/dri/*swrast_dri.so") for d in folders)
PY
}
gl_works() {
    MUJOCO_GL="${MUJOCO_GL:-egl}" .venv/bin/python -c 'import mujoco; mujoco.GLContext(64, 64).make_current()' >/dev/null 2>&1
}
install_gl() {
    [ -z "${WAMRL_SKIP_GL:-}" ] || return 0
    gl_found && return 0
    can_apt || die "OpenGL libraries are missing; ask an administrator for: apt-get install $GL_PACKAGES" \
        "(or set WAMRL_SKIP_GL=1 to go on without rendering)"
    # shellcheck disable=SC2086
    apt_install $GL_PACKAGES
}

# ---- torch
torch_found() {
    .venv/bin/python - 2>/dev/null <<'PY'
import torch
assert (2, 11) <= tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2]) < (3, 0)
PY
}
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }
# What pip would install, as "VERSION cpu|cuda"; nothing when it finds nothing. Downloads no more than it must.
offered() {
    .venv/bin/python $PIP install -q --dry-run --ignore-installed --no-deps --retries 0 --timeout 15 --report - "$@" \
        2>/dev/null | .venv/bin/python -c '
import json, sys
try:
    meta = json.load(sys.stdin)["install"][0]["metadata"]
except (ValueError, LookupError):
    sys.exit()
cuda = any(word in need for need in meta.get("requires_dist", []) for word in ("nvidia", "cuda", "triton"))
print(meta["version"], "cuda" if cuda and "+cpu" not in meta["version"] else "cpu")'
}
install_torch() {
    torch_found && return 0
    local found where
    if has_gpu; then
        say "installing torch for the GPU (several GB; a few minutes)"
        .venv/bin/python $INSTALL "$TORCH_RANGE" || die "pip could not install torch; see its message above"
        return
    fi
    # 1. what pip is set up to offer, if that is a CPU build; 2. PyTorch's index of CPU builds
    for where in "$TORCH" "$TORCH --index-url $CPU_INDEX" "$TORCH_RANGE --index-url $CPU_INDEX"; do
        # shellcheck disable=SC2086
        found=$(offered $where) || true
        [[ "$found" == *" cpu" ]] || continue
        found=${found% *}
        say "installing torch $found (CPU build: no NVIDIA GPU here)"
        # shellcheck disable=SC2086
        .venv/bin/python $INSTALL --no-deps ${where/#"${where%% *}"/"torch==$found"} \
            || die "pip could not install torch; see its message above"
        return
    done
    [ -n "${WAMRL_ALLOW_CUDA:-}" ] || die "no CPU build of torch could be reached ($CPU_INDEX);" \
        "install torch 2.11 or newer into .venv yourself, or set WAMRL_ALLOW_CUDA=1 to accept the CUDA build of several GB"
    say "installing the CUDA build of torch, as WAMRL_ALLOW_CUDA asks (several GB)"
    .venv/bin/python $INSTALL "$TORCH_RANGE" || die "pip could not install torch; see its message above"
}

# ---- do it
begin=$SECONDS
[ -x .venv/bin/python ] && supported .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1 || {
    [ ! -e .venv ] || [ -f .venv/pyvenv.cfg ] || die ".venv exists and is no virtual environment; move it away"
    if [ -e .venv/bin/python ] && ! supported .venv/bin/python; then
        die ".venv holds no working Python 3.11 to 3.13; remove the folder .venv and run this again"
    fi
    make_venv
}
stamp=".venv/.wamrl-$({ pwd; cat pyproject.toml scripts/setup.sh; } | sha256sum | cut -c1-16)${WAMRL_SKIP_GL:+-nogl}"
if [ -e "$stamp" ]; then
    say "ready (.venv is up to date)"
    exit 0
fi
install_gl
install_torch
say "installing wamrl with its simulators, reward models and developer tools (a minute or two)"
log=$(mktemp)
# robosuite needs packages that some machines must compile; without it, everything else still works
if ! .venv/bin/python $INSTALL -e ".[$EXTRAS,robosuite]" >"$log" 2>&1; then
    say "robosuite could not be installed ($(grep -i error "$log" | tail -n 1)); going on without it"
    .venv/bin/python $INSTALL -e ".[$EXTRAS]" || die "pip could not install wamrl; see its message above"
fi
rm -f "$log"
torch_found || die "the torch in .venv does not load or is older than 2.11; remove .venv and run this again"
if [ -z "${WAMRL_SKIP_GL:-}" ] && ! gl_works; then
    die "MuJoCo cannot open a ${MUJOCO_GL:-egl} context; install $GL_PACKAGES, or try MUJOCO_GL=osmesa with libosmesa6"
fi
rm -f .venv/.wamrl-*
touch "$stamp"
say "ready in $((SECONDS - begin)) s: $(.venv/bin/python -c '
import platform, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"Python {platform.python_version()}, torch {torch.__version__}, {gpu}")')"
