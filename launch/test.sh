#!/usr/bin/env bash
# Sets up with the test extra, then runs the tests: bash launch/test.sh [--slow] [pytest arguments …]
#
# Test files run in parallel, on at most four cores. --slow adds the tests that take minutes. Paths are
# relative to the repository. PYTHON= sets the interpreter for .venv.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install_test

arguments=()
for argument in "$@"; do
  if [[ "$argument" == --slow ]]; then
    arguments+=(-m "") # replaces `not slow` of pyproject.toml
  else
    arguments+=("$argument")
  fi
done

cd "$root"
# The bash of macOS treats an empty array as unset, hence the +.
exec "$venv_python" -m pytest -n auto --maxprocesses 4 --dist loadfile ${arguments[@]+"${arguments[@]}"}
