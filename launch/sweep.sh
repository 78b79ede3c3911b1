#!/usr/bin/env bash
# Settings times seeds, side by side: bash launch/sweep.sh SWEEP FIRST LAST [NAME …]
#
# SWEEP names configs/sweeps/SWEEP.txt, whose lines are a name, a recipe of configs/quickstart.py and
# settings. Every line, or those with a NAME that is given, is run for every seed from FIRST to LAST
# into runs/SWEEP/NAME-SEED: one core a run, and as many runs at a time as there are cores (JOBS= for
# another number). The line `base` is run first and the others begin behind it (--base_from). A
# finished run is not run again, a stopped one goes on. Then prints the tables.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $# -ge 3 ]] || die "Say what and which seeds: bash launch/sweep.sh recipes 21 28 [NAME …]"
sweep="$1" first="$2" last="$3"
shift 3
names=("$@")
install_core
cd "$root"
file="configs/sweeps/$sweep.txt"
[[ -r "$file" ]] || die "There is no $file. Sweeps: $(basename -s .txt -a configs/sweeps/*.txt | xargs)"
mkdir -p "runs/$sweep"
jobs="${JOBS:-$(nproc)}" # before OMP_NUM_THREADS, which nproc obeys
# One thread a run: two runs on a core each are faster than one after the other on two.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_cpu_multi_thread_eigen=false" OMP_NUM_THREADS=1

wanted() {
  local name
  [[ ${#names[@]} -gt 0 ]] || return 0
  for name in "${names[@]}"; do
    [[ "$name" == "$1" ]] && return 0
  done
  return 1
}

train() { # NAME RECIPE SEED FLAGS…
  local folder="runs/$sweep/$1-$3"
  "$venv_python" -m score_jax.main --config="configs/quickstart.py:$2" --config.name="$1" \
    --config.seed="$3" --workdir="$folder" "${@:4}" >"$folder.log" 2>&1 </dev/null ||
    echo "$1-$3 failed: $folder.log"
}

# Runs train in the background once fewer than `jobs` runs are under way.
start() {
  while (($(jobs -rp | wc -l) >= jobs)); do
    wait -n
  done
  train "$@" &
}

lines() { grep -v '^#' "$file"; }

for seed in $(seq "$first" "$last"); do
  start base base "$seed"
done
wait
for seed in $(seq "$first" "$last"); do
  while read -r name recipe flags; do
    if [[ -n "$name" && "$name" != base ]] && wanted "$name"; then
      # shellcheck disable=SC2086 # flags are words
      start "$name" "$recipe" "$seed" --base_from="runs/$sweep/base-$seed" $flags
    fi
  done < <(lines)
done
wait
"$venv_python" -m score_jax.report.comparison.tables --runs="runs/$sweep"
