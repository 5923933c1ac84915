#!/usr/bin/env bash
# Runs benchmarks/gpu_day on a machine without network whose own Python holds torch, numpy, scipy,
# matplotlib, rich, safetensors and tensorboard. What it lacks has come along in .whl/ and .gl/
# (scripts/gpu_wheels.py, run elsewhere).
#   bash scripts/gpu_day.sh OUT [options of python -m benchmarks.gpu_day]
# Settings, all optional:
#   PYTHON=python3           the Python with torch
#   SITE=/tmp/wamrl-site     where the wheels are installed; kept from call to call
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python3}"
SITE="${SITE:-/tmp/wamrl-site}"

say() { echo "gpu_day: $*"; }

# ---- wheels, apart from the machine's own packages
if compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$SITE/.complete" ]; then
    rm -rf "$SITE"
    "$PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
        --no-cache-dir --target "$SITE" .whl/*.whl \
        || { say "error: pip could not install the wheels of .whl"; exit 1; }
    touch "$SITE/.complete"
fi
export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}"

# ---- OpenGL: the loaders of .gl if they are missing, the vendor's driver if it lies elsewhere
loaders_found() {
    local known
    known=$(ldconfig -p)
    [[ "$known" == *"libEGL.so.1 "* && "$known" == *"libOpenGL.so.0 "* ]]
}
can_unpack() {
    [ "$(id -u)" = 0 ] && command -v dpkg >/dev/null && compgen -G ".gl/*.deb" >/dev/null
}
if ! loaders_found && can_unpack; then
    for package in .gl/*.deb; do dpkg -x "$package" /; done
    ldconfig
fi
renders() {
    timeout 120 "$PYTHON" - <<'PY'
import wamrl.cli  # what the wheels must be enough for
from wamrl.envs.metaworld.env import MetaWorldConfig

env = MetaWorldConfig(task="button-press", horizon=80).build()
env.reset(0)
env.step(sum(env.spec.bounds) / 2)
assert env.render().std() > 5, "the picture is empty"
env.close()
PY
}
simulator=()
if ! said=$(renders 2>&1); then
    driver=$(compgen -G "/usr/local/*/share/glvnd/egl_vendor.d/10_nvidia.json" | head -n 1 || true)
    [ -z "$driver" ] || export __EGL_VENDOR_LIBRARY_FILENAMES="$driver"
    if [ -z "$driver" ] || ! said=$(renders 2>&1); then
        echo "$said" | tail -n 5
        say "MetaWorld does not run or render here: the point mass instead, its numbers are missing"
        simulator=(--no-simulator)
    fi
fi
[ "${#simulator[@]}" != 0 ] || say "MetaWorld renders by ${MUJOCO_GL}"
exec "$PYTHON" -m benchmarks.gpu_day "$@" "${simulator[@]}"
