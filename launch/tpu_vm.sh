#!/usr/bin/env bash
# Trains on a Cloud TPU VM or pod slice, and again after each preemption:
#
#   bash launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [OPTION …] -- ARGUMENTS …
#
#   --name=NAME --zone=ZONE    the VM; made if there is none, used if there is (TPU_NAME, TPU_ZONE)
#   --type=v5litepod-16        accelerator type (TPU_TYPE)
#   --project=PROJECT          otherwise gcloud's own (TPU_PROJECT)
#   --version=VERSION          runtime version; otherwise the one that suits the type
#   --spot                     cheaper, and may be taken away at any time
#   --mount=gs://BUCKET        or HOST:/SHARE (NFS): mounted as /mnt/score_jax on every worker, and
#                              the place of --workdir, so that the run outlives the VM
#   --restarts=20              how often at most a stopped run is started again
#   --patience=24              hours to wait for a zone that has no capacity
#   --create=FLAG              passed on to `gcloud … create`, e.g. --create=--network=mine; repeatable
#   --delete                   deletes the VM when the run is done (exit status 0)
#   --dry-run                  prints the commands and runs nothing
#
# ARGUMENTS go to score_jax.main on every worker. Exit status: the training's, with 75 where a signal
# ended it: SIGTERM, SIGUSR1 or Ctrl-C here make it save and end.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/launch/common.sh"

name="${TPU_NAME:-}" zone="${TPU_ZONE:-}" type="${TPU_TYPE:-}" project="${TPU_PROJECT:-}"
version="" spot="" mount="" restarts=20 patience=24 delete=""
create_flags=()
look_sec="${LOOK_SEC:-20}"         # between two looks at a VM that is busy with itself
steady_sec="${STEADY_SEC:-600}"    # a connection that held so long is not counted as a start
capacity_sec="${CAPACITY_SEC:-300}" # between two requests for a VM that the zone has no room for

while (($#)); do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --zone=*) zone="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --spot) spot=yes ;;
    --mount=*) mount="${1#*=}" ;;
    --restarts=*) restarts="${1#*=}" ;;
    --patience=*) patience="${1#*=}" ;;
    --create=*) create_flags+=("${1#*=}") ;;
    --delete) delete=yes ;;
    --dry-run) dry_run=yes ;;
    --)
      shift
      break
      ;;
    *) refuse_option "$1" ;;
  esac
  shift
done

check_options() {
  [[ -n "$name" ]] || refuse "Which VM? Give --name=NAME or set TPU_NAME; if it does not exist it is made."
  [[ -n "$zone" ]] || refuse "Where? Give --zone=ZONE, e.g. us-central2-b, or set TPU_ZONE."
  [[ -n "$type" ]] || refuse "Which TPU? Give --type=TYPE, e.g. v5litepod-16, or set TPU_TYPE."
  [[ "$type" =~ ^[a-z0-9]+-[0-9]+$ ]] || refuse "--type=$type is no accelerator type, such as v5litepod-16."
  [[ "$restarts$patience" =~ ^[0-9]+$ ]] || refuse "--restarts and --patience are whole numbers."
  version="${version:-$(version_of "$type")}"
  [[ -n "$version" ]] || refuse "Which runtime version suits $type is not known here. Give" \
    "--version=VERSION; \`gcloud compute tpus tpu-vm versions list --zone=$zone\` lists them."
  if [[ -z "$mount" ]]; then
    # Up to 8 chips or cores are one host, in all types.
    ((${type##*-} <= 8)) || refuse "$type has several hosts, which must see one work directory." \
      "Give --mount=gs://BUCKET or --mount=HOST:/SHARE, and a --workdir in /mnt/score_jax."
    [[ -z "$spot" ]] || refuse "A spot VM takes its disk with it. Give --mount=gs://BUCKET or" \
      "--mount=HOST:/SHARE, and a --workdir in /mnt/score_jax, or leave out --spot."
  else
    [[ "$mount" == gs://?* || "$mount" == ?*:/* ]] || refuse "--mount=$mount is neither gs://BUCKET nor HOST:/SHARE."
    [[ "$workdir" == /mnt/score_jax/?* ]] || refuse "--workdir=$workdir is not on the storage that" \
      "outlives the VM. Name a folder in /mnt/score_jax, e.g. /mnt/score_jax/runs/first."
  fi
}

version_of() {
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
  esac
}

# The commands

tpu() { # VERB ARGUMENTS …
  run gcloud compute tpus tpu-vm "$@" "--zone=$zone" ${project:+"--project=$project"}
}

on_workers() { # COMMAND
  # A connection that died is noticed after a minute.
  tpu ssh "$name" --worker=all "--command=$1" "--ssh-flag=-o ConnectTimeout=15" \
    "--ssh-flag=-o ServerAliveInterval=15" "--ssh-flag=-o ServerAliveCountMax=4"
}

create() {
  tpu create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot} \
    ${create_flags[@]+"${create_flags[@]}"}
}

delete() {
  tpu delete "$name" --quiet
}

# The last commit with what was changed since in files that git knows.
pack() {
  local tree=""
  if [[ -z "$dry_run" ]]; then
    tree="$(git -C "$root" stash create)" ||
      die "$root is no checkout of git, which is asked what to copy. Clone the repository."
    revision="$(git -C "$root" describe --always --dirty --abbrev=40 '--exclude=*')"
  fi
  run git -C "$root" archive --format=tar.gz "--output=$archive" "${tree:-HEAD}"
}

# Not beneath a training that is under way: Python reads files long after the start.
unpack='mkdir -p score_jax .score_jax && flock -n -E 0 .score_jax/lock tar -xzf score_jax.tar.gz -C score_jax'

copy() {
  tpu scp "$archive" "$name:score_jax.tar.gz" --worker=all
}

prepare() {
  on_workers "$unpack && bash score_jax/launch/tpu_worker.sh prepare${mount:+ $(quoted "$mount")}"
}

train() { # ID ARGUMENTS …
  # The copy has no .git that a run could ask.
  on_workers "SCORE_JAX_REVISION=$revision bash score_jax/launch/tpu_worker.sh run $(quoted "$@")"
}

stop() {
  on_workers "bash score_jax/launch/tpu_worker.sh stop"
}

# The life of a VM

ask_state() {
  local found
  if found="$(tpu describe "$name" "--format=value(state)" 2>"$errors")"; then
    printf '%s\n' "$found"
  else
    grep -q NOT_FOUND "$errors" && echo ABSENT
  fi
}

# Leaves $state. When it cannot be told at first, something is wrong with names or log-in; later, with
# the network, which may come back.
learn_state() {
  local give_up=$((SECONDS + 3600 * patience))
  until state="$(ask_state)"; do
    cat "$errors" >&2
    [[ -z "$stopping" ]] || return 1
    if [[ -z "$asked" ]] || ((SECONDS >= give_up)); then
      die "What became of $name cannot be told; see above. Nothing was deleted. Run the same command again."
    fi
    say "Asking again in $look_sec seconds."
    sleep "$look_sec"
  done
  asked=yes
}

# Returns when there is a VM to log in to.
bring_up() {
  local give_up=$((SECONDS + 3600 * patience))
  while [[ -z "$stopping" ]]; do
    learn_state || return
    case "$state" in
      READY) return ;;
      ABSENT) make "$give_up" ;;
      PREEMPTED | TERMINATED)
        needs_mount "$state"
        say "$name is $state; deleting what is left of it."
        delete || die "$name could not be deleted; see above."
        ;;
      STOPPED | SUSPENDED) die "$name is $state. Start it (gcloud compute tpus tpu-vm start) or delete it." ;;
      *)
        say "$name is $state; waiting."
        sleep "$look_sec"
        ;;
    esac
  done
  return 1
}

# Without storage of its own the run went with the VM: to start it again would be another run.
needs_mount() { # STATE
  [[ -n "$mount" ]] || die "$name is $1, and the work directory was on its disk: nothing to go on from." \
    "To begin anew delete it, if it is still there: $(dry_run=yes delete)"
}

make() { # WHEN TO GIVE UP
  say "Making $name ($type in $zone), which takes some minutes."
  create 2>"$errors" && return
  cat "$errors" >&2
  if grep -qi quota "$errors"; then
    refuse "The project's quota does not allow for $type${spot:+ (spot)} in $zone. Ask for more on the" \
      "console's page IAM & Admin > Quotas (Cloud TPU API), or take another zone, size or --spot."
  elif grep -qiE 'capacity|stockout|RESOURCE_EXHAUSTED' "$errors"; then
    ((SECONDS < $1)) || die "$zone had no room for $type for $patience hours. Take another zone or type."
    say "$zone has no room for $type now; asking again in $capacity_sec seconds."
    sleep "$capacity_sec"
  elif grep -q ALREADY_EXISTS "$errors"; then
    sleep "$look_sec" # and look at it again
  else
    die "$name could not be made; see above."
  fi
}

# Copies, installs, trains; the exit status of the first that fails. The training runs in a process
# group of its own, so that Ctrl-C at a terminal reaches this script alone.
once() { # ID ARGUMENTS …
  local status=0
  bring_up && copy && prepare || status=$?
  [[ -z "$stopping" ]] || return 75
  [[ "$status" -eq 0 ]] || return "$status"
  set -m
  train "$@" </dev/null &
  training=$!
  set +m
  await "$training" || status=$?
  training=""
  return "$status"
}

on_signal() {
  [[ -z "$stopping" ]] || exit 130 # the second one
  stopping=yes
  if [[ -n "$training" ]]; then
    say "Stopping: the training saves and ends; another signal leaves it running and ends this script."
    set -m
    stop </dev/null &
    set +m
    wait "$!" || say "The workers could not be told; the training may still run on $name."
  fi
}

leave() { # EXIT STATUS
  say "$name exists and is billed. To delete it: $(dry_run=yes delete)"
  exit "$1"
}

check_arguments "$@"
check_options
archive="${TMPDIR:-/tmp}/score_jax-$name.tar.gz"
revision=REVISION # of what is copied; pack asks for it

if [[ -n "$dry_run" ]]; then
  echo "# The VM: looked at, and made if there is none."
  tpu describe "$name" "--format=value(state)"
  create
  echo "# The repository to every worker, installed there."
  pack
  copy
  prepare
  echo "# The training, on every worker. ID is new with every start."
  train ID "$@"
  echo "# On a signal: it saves and ends with 75."
  stop
  if [[ -n "$mount" ]]; then
    echo "# Preempted (PREEMPTED, TERMINATED): this, and all from the start, at most $restarts times."
    delete
  fi
  exit
fi

stopping="" training="" state="" asked=""
errors="$(mktemp)"
trap 'rm -f "$errors" "$archive"' EXIT
trap on_signal INT TERM USR1

pack # once, so that all starts run the same code
for ((started = 0; ; started++)); do
  status=0 begun="$SECONDS"
  once "$(date +%s)-$started" "$@" || status=$?
  case "$status" in
    0)
      say "Done."
      [[ -z "$delete" ]] || { delete && exit; }
      leave 0
      ;;
    2) leave 2 ;;
  esac
  [[ -z "$stopping" ]] || leave "$status"
  learn_state || leave "$status"
  # 255: the connection broke. On a VM that is there, any other status is the training's own.
  if [[ "$state" == READY && "$status" -ne 255 ]] && ! goes_on "$status"; then
    say "Ended with exit status $status, see above; a training's whole log is in ~/.score_jax/log of" \
      "each worker."
    leave "$status"
  fi
  [[ "$state" == READY ]] || needs_mount "$state"
  if [[ "$state" == READY && "$status" -eq 255 ]] && ((SECONDS - begun >= steady_sec)); then
    started=$((started - 1)) # the training goes on, and the connection was good for long
  fi
  if ((started >= restarts)); then
    say "Started again $restarts times (--restarts), and stopped once more ($state, exit status $status)."
    leave 1
  fi
  say "Stopped ($state, exit status $status); starting again, $((started + 1)) of $restarts."
  sleep "$look_sec"
done
