#!/usr/bin/env bash
# The recipe at full length: CIFAR-100-LT, factor 100, 200 epochs. Finished runs are kept, stopped ones resumed.
# Wants the data (export DISTAIL_DATA=folder that holds cifar100/) and, for less than an afternoon a run, a GPU.
# ABLATION=1: and each ingredient taken out; COMMITTEE=1: and from two teachers; FACTOR50=1: and at factor 50.
set -euo pipefail
cd "$(dirname "$0")/../.."
R32='{name: resnet32, shortcut: pad}'

run() {  # NAME key=value ...
  .venv/bin/distail run configs/cifar100-lt-100-recipe.yaml name="recipe-$1" trainer.checkpoint_every_steps=5000 "${@:2}"
}
taught() {  # NAME TEACHER key=value ...
  run "$1" teacher="{model: ${2%%@*}, checkpoint: runs/recipe-${2##*@}/student.safetensors}" "${@:3}"
}

for seed in ${SEEDS:-0}; do
  run ce method=ce seed=$seed
  run balanced-softmax method='{name: ce, supervised: balanced_softmax}' seed=$seed
  run ce-resnet32x4 method=ce student.model=resnet32x4 seed=$seed
  taught distail "$R32@ce-seed$seed" seed=$seed
  taught distail-resnet8x4 "resnet32x4@ce-resnet32x4-seed$seed" student.model=resnet8x4 seed=$seed
done
if [ "${COMMITTEE:-}" ]; then
  run distail-committee teacher="[{model: $R32, checkpoint: runs/recipe-ce-seed0/student.safetensors},
    {model: resnet32x4, checkpoint: runs/recipe-ce-resnet32x4-seed0/student.safetensors}]"
fi
if [ "${FACTOR50:-}" ]; then
  run factor50-ce method=ce data.imbalance_factor=50
  taught factor50-distail "$R32@factor50-ce-seed0" data.imbalance_factor=50
fi
if [ "${ABLATION:-}" ]; then
  taught without-mix "$R32@ce-seed0" training.mix=null
  taught mixed-labels "$R32@ce-seed0" training.mix.labels=mixed
  taught without-auto-augment "$R32@ce-seed0" 'data.augment=[crop,flip,cutout]'
  taught without-cutout "$R32@ce-seed0" 'data.augment=[crop,flip,auto_augment]'
  taught crop-and-flip "$R32@ce-seed0" 'data.augment=[crop,flip]'
  taught without-averaging "$R32@ce-seed0" training.ema_decay=null
  taught without-debias "$R32@ce-seed0" 'method={name: distail, targets: []}'
  taught debias-student-side "$R32@ce-seed0" 'method={name: distail, targets: [{name: debias, side: student}]}'
fi
