#!/usr/bin/env bash
# Sets up, checks the style, runs the tests, two files at a time. Options go to pytest:
#   bash scripts/test.sh -k flow
#   bash scripts/test.sh -n 0        one test after the other, in one process
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
style=0
python -m ruff check . || style=$?
python -m ruff format --check --quiet . || style=$?
python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@" || exit $?
exit $style
