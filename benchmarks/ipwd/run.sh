#!/usr/bin/env bash
# IPWD's choices one against another: 25 classes of balanced CIFAR-100, ResNet-56 to MobileNetV2, 40 epochs; finished runs are
# kept, stopped ones resumed. Wants the data: export DISTAIL_DATA=folder that holds cifar100/. On one quiet core the teacher
# takes about 45 minutes, a student 12 (88 ms a step; VGG-8 took 185 in bf16, ShuffleNetV2 356).
set -euo pipefail
cd "$(dirname "$0")/../.."
data=build/cifar25

[ -d "$data/test" ] || .venv/bin/python benchmarks/ipwd/make_data.py "$DISTAIL_DATA" "$data"
.venv/bin/distail compare benchmarks/ipwd/cifar25.yaml data.root="$data" trainer.compile=true \
  --methods benchmarks/ipwd/methods.yaml --seeds "${SEEDS:-0}" --baseline kd
