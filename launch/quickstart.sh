#!/usr/bin/env bash
# Sets up, then trains the quickstart: bash launch/quickstart.sh [--config.KEY=VALUE …]
#
# Arguments go to score_jax.main and win over the ones here; paths are relative to the repository.
# PYTHON= names another interpreter to make .venv with.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_core

# XLA's temporaries on the CPU come from malloc; keep their pages instead of giving them back to the
# kernel and faulting them in again every step. (Names of glibc; elsewhere they do nothing.)
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_-0}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_-8000000000}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_-268435456}"

cd "$root"
exec "$venv_python" -m score_jax.main \
  --config=configs/quickstart.py --workdir=runs/quickstart "$@"
