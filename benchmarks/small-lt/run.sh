#!/usr/bin/env bash
# The repairs on two small real data sets, two seeds each: digits (factor 50) and Fashion-MNIST (factor 100; the Debian
# package dataset-fashion-mnist). Finished runs are kept, stopped ones resumed.
set -euo pipefail
cd "$(dirname "$0")/../.."

for name in ${SETS:-digits fashion}; do
  .venv/bin/distail compare "benchmarks/small-lt/$name.yaml" \
    --methods benchmarks/small-lt/methods.yaml --seeds "${SEEDS:-0,1}" --baseline ce
done
