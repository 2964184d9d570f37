#!/usr/bin/env bash
# Balanced CIFAR-100, ResNet-32 to ResNet-20, 12 epochs; finished runs are kept, stopped ones resumed.
# Wants the data: export DISTAIL_DATA=folder that holds cifar100/. About two and a half hours on two quiet cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=cifar100-12epochs

.venv/bin/distail compare configs/cifar100-ipwd-resnet56-resnet20.yaml name=$name trainer.compile=true \
  teacher.model=resnet32 training.epochs=12 \
  'training.schedule={name: step, milestones: [7, 9, 11], factors: [0.1, 0.01, 0.001]}' \
  --methods benchmarks/cifar100-quarters/methods.yaml --seeds "${SEEDS:-0}"
.venv/bin/python benchmarks/quarters.py comparisons/$name benchmarks/cifar100-quarters/results
