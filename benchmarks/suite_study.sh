#!/usr/bin/env bash
# One model for four tasks against four models for one each: `bash benchmarks/suite_study.sh OUT [SEED ...]`.
# Both sides have the same demonstrations, episodes, clips and samples of policy steps in all; of each the
# single-task models take a quarter, and as many parameters each as the one model. A run that is finished is not run again.
set -euo pipefail
out=${1:?usage: bash benchmarks/suite_study.sh OUT [SEED ...]}
seeds=("${@:2}")
[ "${#seeds[@]}" != 0 ] || seeds=(0 1 2)
tasks=(button-press drawer-close plate-slide window-open)
# The recipe, with a quarter of its iterations.
whole=(--train.iterations 16)
quarter=(--data.episodes 2 --data.heldout 2 --sft.steps 250 --train.iterations 16 --eval.episodes 50 --eval.during 20
    --train.groups 8 --train.learner.batch 64 --train.world.steps 10)
mkdir -p "$out"
learn() { # NAME SEED [OPTION ...]: the base, then online
    local name=$1 seed=$2 here="$out/s$2"
    local options=(--name "$name" --seed "$seed" --threads 1 "${@:3}")
    compgen -G "$here/$name-*/summary.json" >/dev/null && return 0
    compgen -G "$here/base/$name-*/checkpoints/base" >/dev/null ||
        python -m wamrl.cli sft mt4 --out "$here/base" "${options[@]}" >"$out/$name-$seed-base.log" 2>&1
    python -m wamrl.cli train mt4 --out "$here" --base "$(ls -d "$here/base/$name"-*/checkpoints/base)" \
        "${options[@]}" >"$out/$name-$seed.log" 2>&1
}
for seed in "${seeds[@]}"; do
    learn suite "$seed" "${whole[@]}"
    for task in "${tasks[@]}"; do
        learn "$task" "$seed" --env.only "$task" "${quarter[@]}"
    done
done
here=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$here" python -m benchmarks.suite_table "$out"
