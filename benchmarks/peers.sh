#!/usr/bin/env bash
# Installs what benchmarks/pool.py is compared with into benchmarks/.peers, beside our environment and not into it:
#     bash benchmarks/peers.sh [PYTHON]
# Without dependencies where ours will do (torch, numpy, gymnasium); pandas is what its import needs besides.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-.venv/bin/python}"
[ -x "$(command -v "$python")" ] || python=python3
"$python" -m pip install --quiet --no-deps --upgrade --target benchmarks/.peers "stable-baselines3==2.9.2"
"$python" -m pip install --quiet --no-deps --upgrade --target benchmarks/.peers "pandas>=2,<3" pytz tzdata python-dateutil six
PYTHONPATH="benchmarks/.peers${PYTHONPATH:+:$PYTHONPATH}" "$python" -c \
    'import stable_baselines3 as sb3; from stable_baselines3.common.vec_env import SubprocVecEnv; print("ready:", sb3.__version__)'
