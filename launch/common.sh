# Sourced by the launchers for clusters: what they do alike.
#
#   run COMMAND …          does it or, where dry_run is set, prints it
#   quoted WORD …          the words as a line for a shell
#   await PID              waits for a process in the background, whatever signals come; its exit status
#   goes_on STATUS         whether a training that ended so is to be started again
#   refuse TEXT …          one message, exit status 2, as the program's own for bad input
#   refuse_option OPTION   the same of an option that a launcher does not have
#   check_arguments ARGUMENTS …   refuses what score_jax.main would; leaves $workdir
# shellcheck shell=bash

dry_run=""

say() {
  printf '%s\n' "$*" >&2
}

refuse() {
  say "$*"
  exit 2
}

refuse_option() {
  refuse "Unknown option $1. Options come first, then -- and the arguments of score_jax.main;" \
    "the first lines of $0 list them."
}

# A line that a shell reads back as these words. Remote shells and people read it: quotes only where
# they are needed.
quoted() {
  local word line="" inner="'\\''"
  for word in "$@"; do
    if [[ ! "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      word="'${word//\'/$inner}'"
    fi
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

run() {
  if [[ -n "$dry_run" ]]; then
    quoted "$@"
  else
    "$@"
  fi
}

# A trapped signal ends `wait`, not the process. What it ended with can be asked for again.
await() {
  while kill -0 "$1" 2>/dev/null; do
    wait "$1" || true
  done
  wait "$1"
}

# 75: saved on a signal. 76: hung, says the watchdog. 134: jax ends a process so when another is gone.
goes_on() {
  [[ "$1" == 75 || "$1" == 76 || "$1" == 134 ]]
}

# What follows a launcher's own options goes to score_jax.main as it is; these two it must have, and
# it is better to miss them here than on a machine that costs money.
check_arguments() {
  local argument config="" before=""
  workdir=""
  for argument in "$@"; do
    case "$before$argument" in
      --config=* | --config' '*) config="$argument" ;;
      --workdir=* | --workdir' '*) workdir="${argument#--workdir=}" ;;
    esac
    before=""
    [[ "$argument" != --config && "$argument" != --workdir ]] || before="$argument "
  done
  [[ -n "$config" ]] || refuse "--config=FILE is missing among the arguments of score_jax.main."
  [[ -n "$workdir" ]] || refuse "--workdir=DIR is missing among the arguments of score_jax.main."
  [[ "$workdir" != *://* ]] ||
    refuse "--workdir=$workdir is no folder: a run is kept in files. Mount the bucket and name a" \
      "folder in it; docs/operations.md says how."
}
