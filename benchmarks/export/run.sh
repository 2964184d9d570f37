#!/usr/bin/env bash
# What int8 costs the rare classes: students of bkd on CIFAR-100-LT (factor 100, 30 epochs), exported and judged on the
# 10,000 test images. Wants the data: export DISTAIL_DATA=folder that holds cifar100/. TEACHER=weights of a ResNet-32
# that was trained before saves training one. Finished runs are kept, stopped ones resumed.
set -euo pipefail
cd "$(dirname "$0")/../.."

for network in resnet20 mobilenetv2; do
  run="runs/export-$network"
  .venv/bin/distail run configs/cifar100-lt-100-30epochs.yaml name="export-$network" output="$run" \
    student.model="$network" teacher.views=4 ${TEACHER:+teacher.checkpoint="$TEACHER"}
  TEACHER="${TEACHER:-$run/teacher.safetensors}"
  .venv/bin/distail export "$run" --format onnx --int8 --max-tail-loss 1 || echo "exit code $?"
done
