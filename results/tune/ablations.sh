#!/bin/sh
# What each part of `lam train tune` is worth: short runs of equal cost, judged by held-out training data.
# `sh results/tune/ablations.sh`, from the repository's root; DATA is beside it. About half an hour on two cores.
set -u
scifact=DATA/mteb-tasks/mteb/scifact
stsb=DATA/mteb-tasks/mteb/stsbenchmark-sts

run() {
    name=$1
    shift
    .venv/bin/lam train tune "runs/ablations/$name" --max-loss 100 "$@"
    mkdir -p "results/tune/ablations/$name"
    cp "runs/ablations/$name/run.json" "runs/ablations/$name/log.jsonl" "results/tune/ablations/$name"
}

retrieval() {
    run "$@" --data $scifact --watch $stsb/validation.jsonl --epochs 0.5 --evaluate-steps 26
}

similarity() {
    run "$@" --data $stsb/train.jsonl --watch $scifact --epochs 1 --evaluate-steps 160
}

retrieval full
retrieval no-hard-negatives --negatives 0
retrieval triplet --loss triplet
retrieval no-anchor --anchor 0
similarity similarity-only-no-anchor --anchor 0
similarity similarity-only-anchor-0.5 --anchor 0.5
similarity similarity-only-anchor-20 --anchor 20
