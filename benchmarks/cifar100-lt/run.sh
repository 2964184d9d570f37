#!/usr/bin/env bash
# CIFAR-100-LT, factor 100, ResNet-32 to ResNet-32, 30 epochs, one seed; finished runs are kept, stopped ones resumed.
# Wants the data: export DISTAIL_DATA=folder that holds cifar100/. About ten minutes a run on two quiet cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=configs/cifar100-lt-100-30epochs.yaml
name=cifar100-lt-100-30epochs
seed=${SEED:-0}
teacher=teacher.checkpoint=runs/$name-kd-seed$seed/teacher.safetensors
one() { .venv/bin/distail run $config seed=$seed trainer.compile=true "$@"; }

one name=$name-kd method=kd
one name=$name-ce method=ce teacher=null
one name=$name-bkd-beta0 'method={name: bkd, beta: 0.0}' $teacher
one name=$name-drkd 'method={name: drkd, temperature: 4.0, supervised_weight: 0.5, distillation_weight: 0.5}' $teacher
for method in bkd ipwd krdistill ltkd dkd wsld dive; do
  one name=$name-$method method=$method $teacher
done
one name=$name-ipwd-one-stage method=ipwd teacher=previous_epoch
.venv/bin/python benchmarks/cifar100-lt/collect.py runs/$name-*-seed$seed
