#!/usr/bin/env bash
# CIFAR-100-LT, factor 100, ResNet-32 to ResNet-32, 30 epochs; finished runs are kept, stopped ones resumed.
# Wants the data: export DISTAIL_DATA=folder that holds cifar100/. About ten minutes a run on two quiet cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=cifar100-lt-100-30epochs

.venv/bin/distail compare configs/$name.yaml name=$name trainer.compile=true \
  --methods benchmarks/cifar100-lt/methods.yaml --seeds "${SEEDS:-0}"
.venv/bin/python benchmarks/cifar100-lt/collect.py comparisons/$name/runs/*
