#!/usr/bin/env bash
# A search of 22 trials, then every preset of the same configuration over the seeds that its choice was judged with.
# Finished runs are kept, stopped ones resumed. SETS=digits or fashion (the Debian package dataset-fashion-mnist).
set -euo pipefail
cd "$(dirname "$0")/../.."

for name in ${SETS:-digits fashion}; do
  .venv/bin/distail search "benchmarks/search/$name.yaml" --trials "${TRIALS:-22}" --seeds "${SEEDS:-1-3}"
  .venv/bin/distail compare "benchmarks/search/$name.yaml" --seeds "${SEEDS:-1-3}" --baseline ce \
    --methods ce,kd,bkd,drkd,ipwd,krdistill,ltkd,dive,distail,dkd,wsld,dist,ls
  .venv/bin/python benchmarks/search/table.py "searches/search-$name" "comparisons/search-$name"
done
