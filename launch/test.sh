#!/usr/bin/env bash
# Sets up with the test extra, then runs the tests: bash launch/test.sh [--slow] [pytest arguments …]
#
# Files of tests run side by side, on at most four cores. --slow runs the tests that take minutes as
# well. Paths are relative to the repository.
# PYTHON= names another interpreter to make .venv with.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_test

arguments=()
for argument in "$@"; do
  if [[ "$argument" == --slow ]]; then
    arguments+=(-m "") # takes the place of `not slow` in pyproject.toml
  else
    arguments+=("$argument")
  fi
done

cd "$root"
# An empty array counts as unset in the bash of macOS, hence the +.
exec "$venv_python" -m pytest -n auto --maxprocesses 4 --dist loadfile ${arguments[@]+"${arguments[@]}"}
