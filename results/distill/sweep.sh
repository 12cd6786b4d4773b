#!/bin/sh
# What a token of distillation is worth by recipe: short runs of equal cost from the start, judged by held-out texts.
# `sh results/distill/sweep.sh`, from the repository's root; DATA is beside it. About half an hour on two cores.
set -eu

run() {
    name=$1
    shift
    .venv/bin/lam train distill "runs/sweep/$name" --data DATA/train/text.parquet DATA/train/pairs.parquet \
        DATA/train/long.parquet --guard DATA/eval_exclude_normalised.txt.xz --evaluate-tokens 100000 \
        --warmup-tokens 40000 "$@"
    mkdir -p results/distill/sweep
    cp "runs/sweep/$name/log.jsonl" "results/distill/sweep/$name.jsonl"
}

stages() {
    name=$1 first=$2
    shift 2
    run "$name" --stage1-tokens "$first" --stage2-tokens $((400000 - first)) "$@"
}

stages plain 100000
stages no-stage-1 0
stages longer-stage-1 250000
stages stage-2-at-2e-4 100000 --stage2-lr 2e-4
stages stage-2-at-1.5e-3 100000 --stage2-lr 1.5e-3
stages batches-of-1024 100000 --batch-tokens 1024
stages batches-of-2048 100000 --batch-tokens 2048
stages batches-of-8192 100000 --batch-tokens 8192
stages warm-up-of-10000 100000 --warmup-tokens 10000
stages pooled-weight-80 100000 --pooled-weight 80
stages short-texts-alone 100000 --long-share 0
