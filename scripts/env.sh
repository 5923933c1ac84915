# Sourced by the other scripts: sets up, then sensible defaults for what the user has not set.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh || exit $?
export MUJOCO_GL="${MUJOCO_GL:-egl}"                       # render without a screen
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-2000}"            # torch's threads spin, but briefly (see wamrl/cli.py)
# Containers often set it. Every process would then compile 1,800 modules again: twice as long until it starts.
unset PYTHONDONTWRITEBYTECODE
PATH="$PWD/.venv/bin:$PATH"
