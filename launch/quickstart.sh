#!/usr/bin/env bash
# Sets up, then trains the quickstart: bash launch/quickstart.sh [--config.KEY=VALUE …]
#
# Arguments go to score_jax.main and override those below. Paths are relative to the repository.
# PYTHON= sets the interpreter for .venv.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_core

cd "$root"
exec "$venv_python" -m score_jax.main \
  --config=configs/quickstart.py --workdir=runs/quickstart "$@"
