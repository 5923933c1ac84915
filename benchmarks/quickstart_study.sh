#!/usr/bin/env bash
# The quickstart and its controls on seeds 0, 1, 2: `bash benchmarks/quickstart_study.sh OUT`, about an hour on two cores.
# Two runs at a time, one torch thread each; the controls of a seed start from the base model of that seed's quickstart.
set -euo pipefail
out=${1:?usage: bash benchmarks/quickstart_study.sh OUT}
mkdir -p "$out"
job() {
    local recipe=$1 seed=$2 out=$3 base=()
    if [ "$recipe" != quickstart ]; then base=(--base "$(ls -d "$out/s$seed"/quickstart-*/checkpoints/base)"); fi
    local verb=train; [ "$recipe" = quickstart ] && verb=quickstart
    python -m wamrl.cli "$verb" "$recipe" --seed "$seed" --threads 1 --out "$out/s$seed" "${base[@]}" \
        >"$out/$recipe-$seed.log" 2>&1 || echo "failed: $recipe $seed, see $out/$recipe-$seed.log"
}
export -f job
for recipe in quickstart actor-only clone-successes world-only demos-only; do
    for seed in 0 1 2; do echo "$recipe $seed $out"; done
done | xargs -P 2 -L 1 bash -c 'job "$@"' _
python "$(dirname "$0")/results_table.py" "$out"/s[012]/*/
