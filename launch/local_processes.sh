#!/usr/bin/env bash
# Runs one training in N processes on this machine: bash launch/local_processes.sh N [--dry-run] ARGUMENTS …
#
# As on N hosts, every process runs the same command with its own devices, and process 0 writes.
# Arguments go to score_jax.main, e.g. --config=configs/quickstart.py --workdir=runs/two. A process
# has one CPU device, or four with XLA_FLAGS=--xla_force_host_platform_device_count=4.
# After SIGTERM, SIGUSR1, Ctrl-C or a closed terminal all processes save, and the exit status is 75.
# PORT= sets the port of process 0; default: a free one. --dry-run prints the commands.
# PYTHON= sets the interpreter for .venv, if there is no .venv yet.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/launch/common.sh"

[[ "${1:-}" =~ ^[1-9][0-9]*$ ]] ||
  refuse "The number of processes is missing: bash launch/local_processes.sh N --config=FILE --workdir=DIR …"
processes="$1"
shift
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=yes
  shift
fi
check_arguments "$@"

if [[ -z "$dry_run" ]]; then
  [[ -x "$venv_python" ]] || install_core
  PORT="${PORT:-$("$venv_python" -c 'import socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    print(free.getsockname()[1])')}"
fi
cd "$root"

command_of() { # process, arguments … -> the array `command`
  local process="$1"
  shift
  command=("$venv_python" -m score_jax.main "--coordinator=127.0.0.1:${PORT:-PORT}"
    "--processes=$processes" "--process=$process" "$@")
}

if [[ -n "$dry_run" ]]; then
  for ((process = 0; process < processes; process++)); do
    command_of "$process" "$@"
    quoted "${command[@]}"
  done
  exit 0
fi

pids=()
came=""
# shellcheck disable=SC2329  # traps call it
pass_on() {
  came="$1"
  kill "-$1" "${pids[@]}" 2>/dev/null || true # some may have ended already
}
trap 'pass_on USR1' USR1
trap 'pass_on HUP' HUP
trap 'pass_on TERM' TERM INT # background processes of a shell ignore INT

for ((process = 0; process < processes; process++)); do
  command_of "$process" "$@"
  "${command[@]}" > >(while IFS= read -r line; do printf '[%d] %s\n' "$process" "$line"; done) 2>&1 &
  pids+=("$!")
  [[ -z "$came" ]] || kill "-$came" "$!" 2>/dev/null || true # it came before this one was known
done

result=0
for pid in "${pids[@]}"; do
  status=0
  await "$pid" || status=$?
  # 75 only if no process ended with another error.
  if [[ "$status" -ne 0 && ("$result" -eq 0 || "$result" -eq 75) ]]; then
    result="$status"
  fi
done
exit "$result"
