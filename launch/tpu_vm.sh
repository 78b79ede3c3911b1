#!/usr/bin/env bash
# Trains on a Cloud TPU VM or pod slice, and restarts after each preemption:
#
#   bash launch/tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [OPTION …] -- ARGUMENTS …
#
#   --name=NAME --zone=ZONE    the VM, created if it does not exist (TPU_NAME, TPU_ZONE)
#   --type=v5litepod-16        accelerator type (TPU_TYPE)
#   --project=PROJECT          default: gcloud's own (TPU_PROJECT)
#   --version=VERSION          runtime version; default: the one for the type
#   --spot                     cheaper, but may be preempted at any time
#   --mount=gs://BUCKET        or HOST:/SHARE (NFS): mounted as /mnt/score_jax on every worker. Needed
#                              unless --workdir=gs://BUCKET/PATH: --workdir is then a folder in it, so
#                              that the run outlives the VM
#   --restarts=20              most restarts of a stopped run
#   --patience=24              hours to wait if the zone has no capacity
#   --create=FLAG              passed to `gcloud … create`, e.g. --create=--network=mine; repeatable
#   --delete                   deletes the VM when the run is done (exit status 0)
#   --dry-run                  prints the commands and runs nothing
#
# ARGUMENTS go to score_jax.main on every worker. The exit status is the training's. SIGTERM, SIGUSR1 or
# Ctrl-C make it save and exit with 75.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/launch/common.sh"

name="${TPU_NAME:-}" zone="${TPU_ZONE:-}" type="${TPU_TYPE:-}" project="${TPU_PROJECT:-}"
version="" spot="" mount="" restarts=20 patience=24 delete=""
outlives="" # not empty: the work directory outlives the VM
create_flags=()
look_sec="${LOOK_SEC:-20}"         # between two checks of a VM that starts or stops
steady_sec="${STEADY_SEC:-600}"    # after a connection of this length, reconnecting is not counted as a restart
capacity_sec="${CAPACITY_SEC:-300}" # between two requests for a VM if the zone has no capacity

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
  [[ -n "$name" ]] || refuse "The VM is missing. Give --name=NAME or set TPU_NAME; the VM is created if it does not exist."
  [[ -n "$zone" ]] || refuse "The zone is missing. Give --zone=ZONE, e.g. us-central2-b, or set TPU_ZONE."
  [[ -n "$type" ]] || refuse "The TPU type is missing. Give --type=TYPE, e.g. v5litepod-16, or set TPU_TYPE."
  [[ "$type" =~ ^[a-z0-9]+-[0-9]+$ ]] || refuse "--type=$type is not an accelerator type such as v5litepod-16."
  [[ "$restarts$patience" =~ ^[0-9]+$ ]] || refuse "--restarts and --patience must be whole numbers."
  version="${version:-$(version_of "$type")}"
  [[ -n "$version" ]] || refuse "The runtime version for $type is not known here. Give" \
    "--version=VERSION; \`gcloud compute tpus tpu-vm versions list --zone=$zone\` lists them."
  [[ -z "$mount" || "$mount" == gs://?* || "$mount" == ?*:/* ]] ||
    refuse "--mount=$mount is neither gs://BUCKET nor HOST:/SHARE."
  outlives="$in_bucket$mount"
  if [[ -z "$outlives" ]]; then
    # In all types up to 8 chips or cores are one host.
    ((${type##*-} <= 8)) || refuse "$type has several hosts, which must share a work directory." \
      "Give --workdir=gs://BUCKET/PATH, or --mount=HOST:/SHARE and a --workdir in /mnt/score_jax."
    [[ -z "$spot" ]] || refuse "A preempted spot VM loses its disk. Give --workdir=gs://BUCKET/PATH, or" \
      "--mount=HOST:/SHARE and a --workdir in /mnt/score_jax, or leave out --spot."
  elif [[ -z "$in_bucket" ]]; then
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
  # A dead connection is noticed after a minute.
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

# The last commit, with the changes since in files that git tracks.
pack() {
  local tree=""
  if [[ -z "$dry_run" ]]; then
    tree="$(git -C "$root" stash create)" ||
      die "$root is not a git checkout, and git lists the files to copy. Clone the repository."
    revision="$(git -C "$root" describe --always --dirty --abbrev=40 '--exclude=*')"
  fi
  run git -C "$root" archive --format=tar.gz "--output=$archive" "${tree:-HEAD}"
}

# Not while a training runs: Python reads files long after its start.
unpack='mkdir -p score_jax .score_jax && flock -n -E 0 .score_jax/lock tar -xzf score_jax.tar.gz -C score_jax'

copy() {
  tpu scp "$archive" "$name:score_jax.tar.gz" --worker=all
}

prepare() {
  on_workers "$unpack && bash score_jax/launch/tpu_worker.sh prepare${mount:+ $(quoted "$mount")}"
}

train() { # ID ARGUMENTS …
  # The copy has no .git to read the revision from.
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

# Sets $state. If the first request fails, names or log-in are wrong. If a later one fails, it is the
# network, which may come back.
learn_state() {
  local give_up=$((SECONDS + 3600 * patience))
  until state="$(ask_state)"; do
    cat "$errors" >&2
    [[ -z "$stopping" ]] || return 1
    if [[ -z "$asked" ]] || ((SECONDS >= give_up)); then
      die "The state of $name is unknown; see above. Nothing was deleted. Run the same command again."
    fi
    say "Asking again in $look_sec seconds."
    sleep "$look_sec"
  done
  asked=yes
}

# Returns when the VM is ready for log-in.
bring_up() {
  local give_up=$((SECONDS + 3600 * patience))
  while [[ -z "$stopping" ]]; do
    learn_state || return
    case "$state" in
      READY) return ;;
      ABSENT) make "$give_up" ;;
      PREEMPTED | TERMINATED)
        can_resume "$state"
        say "$name is $state; deleting the rest of it."
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

# On the VM's own disk the run was lost with it: a restart would be a new run.
can_resume() { # STATE
  [[ -n "$outlives" ]] || die "$name is $1, and the work directory was on its disk, so the run cannot resume." \
    "To start a new run, delete the VM if it still exists: $(dry_run=yes delete)"
}

make() { # WHEN TO GIVE UP
  say "Creating $name ($type in $zone), which takes some minutes."
  create 2>"$errors" && return
  cat "$errors" >&2
  if grep -qi quota "$errors"; then
    refuse "The project's quota does not allow $type${spot:+ (spot)} in $zone. Ask for more on the" \
      "console's page IAM & Admin > Quotas (Cloud TPU API), or use another zone, size or --spot."
  elif grep -qiE 'capacity|stockout|RESOURCE_EXHAUSTED' "$errors"; then
    ((SECONDS < $1)) || die "$zone had no capacity for $type in $patience hours. Use another zone or type."
    say "$zone has no capacity for $type now; asking again in $capacity_sec seconds."
    sleep "$capacity_sec"
  elif grep -q ALREADY_EXISTS "$errors"; then
    sleep "$look_sec" # and check it again
  else
    die "$name could not be created; see above."
  fi
}

# Copies, installs and trains; returns the exit status of the first that fails. The training runs in its
# own process group, so that Ctrl-C reaches this script alone.
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
    say "Stopping: the training saves and ends. A second signal ends this script and leaves it running."
    set -m
    stop </dev/null &
    set +m
    wait "$!" || say "The workers could not be reached; the training may still run on $name."
  fi
}

leave() { # EXIT STATUS
  say "$name exists and is billed. To delete it: $(dry_run=yes delete)"
  exit "$1"
}

check_arguments "$@"
check_options
archive="${TMPDIR:-/tmp}/score_jax-$name.tar.gz"
revision=REVISION # of the copied files; set by pack

if [[ -n "$dry_run" ]]; then
  echo "# The VM: checked, and created if it does not exist."
  tpu describe "$name" "--format=value(state)"
  create
  echo "# The repository: copied to every worker and installed there."
  pack
  copy
  prepare
  echo "# The training, on every worker. ID is new in every start."
  train ID "$@"
  echo "# After a signal: it saves and exits with 75."
  stop
  if [[ -n "$outlives" ]]; then
    echo "# After a preemption (PREEMPTED, TERMINATED): this, then all of the above, at most $restarts times."
    delete
  fi
  exit
fi

stopping="" training="" state="" asked=""
errors="$(mktemp)"
trap 'rm -f "$errors" "$archive"' EXIT
trap on_signal INT TERM USR1

pack # once, so that all restarts run the same code
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
  # 255: the connection broke. If the VM is ready, any other status is the training's own.
  if [[ "$state" == READY && "$status" -ne 255 ]] && ! restartable "$status"; then
    say "Ended with exit status $status; see above. The whole log of a training is in ~/.score_jax/log of" \
      "each worker."
    leave "$status"
  fi
  [[ "$state" == READY ]] || can_resume "$state"
  if [[ "$state" == READY && "$status" -eq 255 ]] && ((SECONDS - begun >= steady_sec)); then
    started=$((started - 1)) # the training continues, and the connection lasted long
  fi
  if ((started >= restarts)); then
    say "Restarted $restarts times (--restarts), and stopped again ($state, exit status $status)."
    leave 1
  fi
  say "Stopped ($state, exit status $status); restarting, $((started + 1)) of $restarts."
  sleep "$look_sec"
done
