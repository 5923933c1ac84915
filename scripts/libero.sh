#!/usr/bin/env bash
# LIBERO pins robosuite 1.4.0, so it has an environment of its own: makes .venv-libero, then runs what follows in it.
#   bash scripts/libero.sh python -m pytest tests/envs/libero/test_env.py
#   bash scripts/libero.sh wamrl demos libero-object --env.assets FOLDER
# hf-libero also asks for robomimic, wandb, hydra and more, which its environments never import and which bring torch's
# CUDA build; so it is installed without its dependencies, and what it does import by name.
# Settings: PYTHON=python3.12 (3.11 to 3.13); TORCH="torch>=2.11,<3" to let pip choose (e.g. for a GPU).
set -euo pipefail
repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$repo/.venv-libero"
CPU_INDEX="https://download.pytorch.org/whl/cpu"
stamp="$venv/.wamrl-$(cat "$repo/pyproject.toml" "$repo/scripts/libero.sh" | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo "libero: setting up .venv-libero (a few minutes)" >&2
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    install() { "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-compile "$@"; }
    if [ -n "${TORCH:-}" ]; then install "$TORCH"
    else install torch==2.13.0+cpu || install torch==2.13.0 --index-url "$CPU_INDEX"
    fi
    install --no-deps hf-libero==0.1.4 robosuite==1.4.0 bddl==1.0.1
    install -e "$repo[dev]" mujoco==3.3.0 numba pillow opencv-python-headless cloudpickle easydict future pyyaml \
        termcolor huggingface-hub pyopengl
    rm -f "$venv"/.wamrl-*
    touch "$stamp"
fi
export MUJOCO_GL="${MUJOCO_GL:-egl}" GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}" PATH="$venv/bin:$PATH"
[ $# -eq 0 ] || exec "$@"
