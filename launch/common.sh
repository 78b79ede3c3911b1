# Sourced by the cluster launchers: functions that they share.
#
#   run COMMAND …          runs the command or, if dry_run is set, prints it
#   quoted WORD …          prints the words as one line for a shell
#   await PID              waits for a background process, also when signals arrive; its exit status
#   restartable STATUS     whether a training with this exit status is restarted
#   refuse TEXT …          prints one message, exits with 2: bad input
#   refuse_option OPTION   the same for an unknown option
#   check_arguments ARGUMENTS …   refuses what score_jax.main would refuse; sets $workdir, and
#                                 $in_bucket if that is gs://…
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

# A shell reads the line back as the same words. People read it too, so words are quoted only if needed.
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

# A trapped signal ends `wait` but not the process. `wait` can be called again for its status.
await() {
  while kill -0 "$1" 2>/dev/null; do
    wait "$1" || true
  done
  wait "$1"
}

# 74: no disk space or processes left. 75: saved after a signal. 76: hung, ended by the watchdog. 134:
# ended by jax as another process died.
restartable() {
  [[ "$1" == 74 || "$1" == 75 || "$1" == 76 || "$1" == 134 ]]
}

# Arguments after a launcher's own options are passed to score_jax.main unchanged. Two are required, and
# are checked here, before a machine costs money.
check_arguments() {
  local argument config="" before=""
  workdir="" in_bucket=""
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
  # shellcheck disable=SC2034  # launchers read it
  [[ "$workdir" != gs://?* ]] || in_bucket=yes
  [[ "$workdir" != *://* || "$workdir" == gs://?* ]] ||
    refuse "--workdir=$workdir: of buckets only gs:// is known. Mount this one and name a folder in it;" \
      "see docs/operations.md."
}
