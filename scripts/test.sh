#!/usr/bin/env bash
# Sets up, checks the style, runs the tests. Options go to pytest:  bash scripts/test.sh -k flow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
style=0
python -m ruff check . || style=$?
python -m ruff format --check --quiet . || style=$?
python -m pytest -q "$@" || exit $?
exit $style
