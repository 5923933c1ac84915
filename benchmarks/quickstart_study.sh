#!/usr/bin/env bash
# The quickstart and its controls on seeds 0, 1, 2: `bash benchmarks/quickstart_study.sh OUT`, three hours on two cores.
# The quickstart runs alone, as the README's command does; the controls of a seed start from its base model, two at a
# time with one torch thread each, and take as many episodes. A run that is finished is not run again.
set -euo pipefail
out=${1:?usage: bash benchmarks/quickstart_study.sh OUT [CONTROL ...]}
controls=("${@:2}")
[ "${#controls[@]}" != 0 ] || controls=(actor-only clone-successes demos-only actor-clone joint)
mkdir -p "$out"
finished() { compgen -G "$out/s$2/$1-*/summary.json" >/dev/null; }
job() {
    local recipe=$1 seed=$2 base
    finished "$recipe" "$seed" && return 0
    base=$(ls -d "$out/s$seed"/quickstart-*/checkpoints/base)
    python -m wamrl.cli train "$recipe" --seed "$seed" --threads 1 --out "$out/s$seed" --base "$base" \
        >"$out/$recipe-$seed.log" 2>&1 || echo "failed: $recipe $seed, see $out/$recipe-$seed.log"
}
export -f job finished
export out
for seed in 0 1 2; do
    finished quickstart "$seed" && continue
    python -m wamrl.cli quickstart quickstart --seed "$seed" --out "$out/s$seed" >"$out/quickstart-$seed.log" 2>&1
done
for recipe in "${controls[@]}"; do
    for seed in 0 1 2; do echo "$recipe $seed"; done
done | xargs -P 2 -L 1 bash -c 'job "$@"' _
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here" python -m benchmarks.results_table "$out"/s[012]/*/
