#!/usr/bin/env bash
# Runs several settings with several seeds: bash launch/sweep.sh SWEEP FIRST LAST [NAME …]
#
# A line of configs/sweeps/SWEEP.txt has a name, a recipe of configs/quickstart.py and settings. Every
# line, or those of the given NAMEs, is run for all seeds from FIRST to LAST into runs/SWEEP/NAME-SEED.
# A run uses one core, and as many run at a time as there are cores (JOBS= sets another number). The
# line `base` is run first; the others start from its base model (--base_from). Finished runs are
# skipped, stopped ones resume. Prints the tables at the end.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $# -ge 3 ]] || die "Sweep or seeds are missing: bash launch/sweep.sh recipes 21 28 [NAME …]"
sweep="$1" first="$2" last="$3"
shift 3
names=("$@")
install_core
cd "$root"
file="configs/sweeps/$sweep.txt"
[[ -r "$file" ]] || die "There is no $file. Sweeps: $(basename -s .txt -a configs/sweeps/*.txt | xargs)"
mkdir -p "runs/$sweep"
jobs="${JOBS:-$(nproc)}" # before OMP_NUM_THREADS is set, which changes nproc
# One thread per run: two runs on one core each are faster than one after the other on two cores.
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
    echo "$1-$3 failed; see $folder.log"
}

# Starts train in the background, as soon as fewer than `jobs` runs are active.
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
