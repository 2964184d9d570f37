#!/usr/bin/env bash
# CIFAR-100-LT, ResNet-32 from the stored predictions of a ResNet-32 for each image as it is; VIEWS="0 4 16" also from
# 4 and 16 augmented views. Needs DISTAIL_DATA, a folder that holds cifar100/. Finished runs are kept, stopped ones
# resumed: four runs of about 15 minutes per seed on one core. TEACHERS is a folder of runs ce-seed0, ce-seed1, ...; missing
# ones are trained.
set -euo pipefail
cd "$(dirname "$0")/../.."
config=configs/cifar100-lt-100-30epochs.yaml
teachers=${TEACHERS:-comparisons/cifar100-lt-100-30epochs/teachers}
seeds=${SEEDS:-0,1}

for seed in ${seeds//,/ }; do
  teacher=$teachers/ce-seed$seed
  if [ ! -f "$teacher/result.json" ]; then
    teacher=build/real-cases/teacher-seed$seed
    .venv/bin/distail run $config seed="$seed" role=teacher method=ce teacher=null output="$teacher" trainer.compile=true
  fi
  for views in ${VIEWS:-0}; do
    answers=build/real-cases/cifar100-lt-seed$seed-views$views.safetensors
    [ -f "$answers" ] || .venv/bin/distail teach "$teacher" --views "$views" --output "$answers"
    .venv/bin/distail compare $config name="cifar100-lt-views$views-seed$seed" teacher="{logits: $answers}" \
      trainer.compile=true --methods "${METHODS:-ce,kd,bkd,dive}" --baseline ce --seeds "$seed"
  done
done
