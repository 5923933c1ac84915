# Sourced by the other scripts: sets up, then sensible defaults for what the user has not set.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh || exit $?
export MUJOCO_GL="${MUJOCO_GL:-egl}"                       # render without a screen
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"       # waiting threads sleep: spinning beside simulators costs up to 10x
PATH="$PWD/.venv/bin:$PATH"
