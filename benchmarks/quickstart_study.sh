#!/usr/bin/env bash
# The quickstart and its controls on seeds 0, 1, 2: `bash benchmarks/quickstart_study.sh OUT`.
# The four recipes of docs/results.md take an hour on two cores.
# The base of a seed is learned first; the full method and the controls start from it, two runs at a time with one
# torch thread each, and take as many episodes. A run that is finished is not run again.
set -euo pipefail
out=${1:?usage: bash benchmarks/quickstart_study.sh OUT [RECIPE ...]}
recipes=("${@:2}")
[ "${#recipes[@]}" != 0 ] || recipes=(quickstart actor-only clone-successes demos-only actor-clone joint)
mkdir -p "$out"
finished() { compgen -G "$out/s$2/$1-*/summary.json" >/dev/null; }
job() {
    local recipe=$1 seed=$2 base
    finished "$recipe" "$seed" && return 0
    base=$(ls -d "$out/base$seed"/quickstart-*/checkpoints/base)
    python -m wamrl.cli train "$recipe" --seed "$seed" --threads 1 --ranks 1 --out "$out/s$seed" --base "$base" \
        >"$out/$recipe-$seed.log" 2>&1 || echo "failed: $recipe $seed, see $out/$recipe-$seed.log"
}
export -f job finished
export out
for seed in 0 1 2; do
    compgen -G "$out/base$seed/quickstart-*/checkpoints/base" >/dev/null && continue
    python -m wamrl.cli sft quickstart --seed "$seed" --threads 1 --ranks 1 --out "$out/base$seed" >"$out/base-$seed.log" 2>&1
done
for recipe in "${recipes[@]}"; do
    for seed in 0 1 2; do echo "$recipe $seed"; done
done | xargs -P 2 -L 1 bash -c 'job "$@"' _
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here" python -m benchmarks.results_table "$out"/s[012]/*/
