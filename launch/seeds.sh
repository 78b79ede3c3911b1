#!/usr/bin/env bash
# The quickstart's recipes over seeds, side by side: bash launch/seeds.sh FIRST LAST [RECIPE …]
#
# Runs configs/quickstart.py:RECIPE (by default score and multi_turn_rl) for every seed into
# runs/seeds/RECIPE-SEED, one core a run and as many runs at a time as there are cores (JOBS= for
# another number), and prints the table of README. A finished run is not run again.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[[ $# -ge 2 ]] || die "Say which seeds: bash launch/seeds.sh FIRST LAST [RECIPE …], e.g. 11 18"
first="$1" last="$2"
shift 2
recipes=("$@")
[[ $# -gt 0 ]] || recipes=(score multi_turn_rl)
install_core
cd "$root"
mkdir -p runs/seeds
malloc_defaults
jobs="${JOBS:-$(nproc)}" # before OMP_NUM_THREADS, which nproc obeys
# One thread a run: two runs on a core each are faster than one after the other on two.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_cpu_multi_thread_eigen=false" OMP_NUM_THREADS=1

train() {
  local run="$1-$2"
  "$venv_python" -m score_jax.main --config="configs/quickstart.py:$1" --config.seed="$2" \
    --workdir="runs/seeds/$run" >"runs/seeds/$run.log" 2>&1 || echo "$run failed: runs/seeds/$run.log"
}

for seed in $(seq "$first" "$last"); do
  for recipe in "${recipes[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do
      wait -n
    done
    train "$recipe" "$seed" &
  done
done
wait
folders=()
for recipe in "${recipes[@]}"; do
  for seed in $(seq "$first" "$last"); do
    folders+=("runs/seeds/$recipe-$seed")
  done
done
"$venv_python" -m score_jax.report.tables "${folders[@]}"
