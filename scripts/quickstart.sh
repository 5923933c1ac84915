#!/usr/bin/env bash
# Sets up and runs the whole method once, small: demonstrations, SFT, online WAM-RL, evaluation before and after.
#   bash scripts/quickstart.sh [--smoke] [options of `wamrl quickstart`]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec wamrl quickstart "$@"
