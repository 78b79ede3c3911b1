#!/usr/bin/env bash
# Sets up with the test extra, then runs the tests:
#
#   bash launch/test.sh [--slow] [--lowest] [pytest arguments …]
#
# Test files run in parallel, on at most four cores. --slow adds the tests that take minutes. --lowest
# runs with the lowest version of each package that pyproject.toml allows, in .venv-lowest; what needs
# torch, transformers or libtpu is skipped then. Paths are relative to the repository. PYTHON= sets the
# interpreter.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [[ " $* " == *" --lowest "* ]]; then
  install_lowest
else
  install_test
fi

# pytest-timeout cannot end a test that hangs in a library's own code; this ends its process.
chosen=(-o faulthandler_timeout=700 -o faulthandler_exit_on_timeout=true)
arguments=()
for argument in "$@"; do
  if [[ "$argument" == --slow ]]; then
    chosen=(-m "") # replaces `not slow` of pyproject.toml; some of them take longer
  elif [[ "$argument" != --lowest ]]; then
    arguments+=("$argument")
  fi
done

cd "$root"
# The bash of macOS treats an empty array as unset, hence the +.
# A worker that crashes ends the run with the name of its test: replaced, it would wait for ever
# (pytest-xdist 3.8 with loadfile).
exec "$venv_python" -m pytest -n auto --maxprocesses 4 --dist loadfile \
  --no-loadscope-reorder --max-worker-restart 0 \
  "${chosen[@]}" ${arguments[@]+"${arguments[@]}"}
