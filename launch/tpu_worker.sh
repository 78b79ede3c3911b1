#!/usr/bin/env bash
# Runs on each worker of a TPU VM, called by launch/tpu_vm.sh:
#
#   tpu_worker.sh prepare [MOUNT]    installs, and mounts gs://BUCKET or HOST:/SHARE as /mnt/score_jax
#   tpu_worker.sh run ID ARGUMENTS …    trains, shows its log, exits with its exit status
#   tpu_worker.sh stop               makes the training save and end
#
# gcloud repeats a command if its connection broke, and so does a restarted launcher. So the training is
# not a child of the connection. `run` starts a training only if none is running and training ID has not
# ended yet; otherwise it shows the log. Log, arguments and exit status are in ~/.score_jax.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/launch/common.sh"
state="${HOME:?}/.score_jax"
mount_point="${MOUNT_POINT:-/mnt/score_jax}"
worker="${HOSTNAME##*-}" # the names of a slice's hosts end in -w-0, -w-1, …
mkdir -p "$state"

# Images of TPU VMs may have Python 3.10.
provide_python() {
  command -v cc >/dev/null || apt_install gcc
  if ! python_version "$venv_python" >/dev/null && ! (find_python) >/dev/null 2>&1; then
    python3 -m pip install --quiet --user uv || die "Installing uv, which installs Python 3.12, failed."
    python3 -m uv python install 3.12 || die "uv could not install Python 3.12."
    PYTHON="$(python3 -m uv python find --managed-python 3.12)"
  fi
}

install_gcsfuse() {
  local key=/usr/share/keyrings/gcsfuse.asc
  sudo curl -fsSL -o "$key" https://packages.cloud.google.com/apt/doc/apt-key.gpg
  echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  apt_install gcsfuse
}

apt_install() {
  # Just after boot another apt may hold the lock.
  local apt=(sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
  "${apt[@]}" update
  "${apt[@]}" install -y "$@"
}

mount_storage() { # gs://BUCKET or HOST:/SHARE
  if ! mountpoint -q "$mount_point"; then
    sudo mkdir -p "$mount_point"
    if [[ "$1" == gs://* ]]; then
      command -v gcsfuse >/dev/null || install_gcsfuse
      sudo chown "$(id -un)" "$mount_point"
      # No cached metadata: hosts must see each other's files at once.
      gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "${1#gs://}" "$mount_point"
    else
      command -v mount.nfs >/dev/null || apt_install nfs-common
      sudo mount -t nfs "$1" "$mount_point"
      [[ -w "$mount_point" ]] || sudo chown "$(id -un)" "$mount_point"
    fi
  fi
  check_renames
}

# A checkpoint becomes visible by renaming its folder. Buckets without folders cannot do that.
check_renames() {
  local probe="$mount_point/.probe-$HOSTNAME-$$"
  mkdir -p "$probe.before"
  touch "$probe.before/file"
  if ! mv "$probe.before" "$probe.after" 2>/dev/null; then
    rm -rf "$probe.before"
    refuse "$mount_point cannot rename folders, so checkpoints cannot be completed there. Create the" \
      "bucket with --uniform-bucket-level-access --enable-hierarchical-namespace."
  fi
  rm -rf "$probe.after"
}

prepare() { # [MOUNT]
  provide_python
  install_extras tpu,hub,gcs
  if [[ -n "${1:-}" ]]; then
    mount_storage "$1"
  fi
}

# This process outlives connections. It holds the lock as descriptor 9; the training does not.
train() {
  local program status=0
  # A shutdown of the machine signals the training as well.
  trap : TERM HUP
  cd "$root"
  PYTHONUNBUFFERED=1 "$venv_python" -m score_jax.main "$@" 9>&- &
  program=$!
  echo "$program" >"$state/program"
  await "$program" || status=$?
  echo "$status" >"$state/status"
}

start() { # ID ARGUMENTS …
  rm -f "$state/status" "$state/program"
  echo "$1" >"$state/id"
  quoted "${@:2}" >"$state/arguments"
  : >"$state/log"
  setsid bash "$root/launch/tpu_worker.sh" train "${@:2}" >>"$state/log" 2>&1 </dev/null &
  echo "$!" >"$state/trainer"
}

follow() { # FIRST LINE
  tail -n "$1" --pid="$(<"$state/trainer")" -f "$state/log" | sed -u "s/^/[$worker] /"
}

# ssh itself exits with 255 after a broken connection.
report() {
  local status=1
  [[ ! -f "$state/status" ]] || status="$(<"$state/status")"
  exit "$((status == 255 ? 1 : status))"
}

run_or_follow() { # ID ARGUMENTS …
  exec 9>"$state/lock"
  if ! flock -n 9; then
    exec 9>&-
    [[ "$(<"$state/arguments")" == "$(quoted "${@:2}")" ]] ||
      refuse "Another training runs on this machine: $(<"$state/arguments"). Stop it, or wait."
    echo "[$worker] The training runs already; its log continues here."
    follow 20
  elif [[ -f "$state/status" && "$(<"$state/id")" == "$1" ]]; then
    echo "[$worker] The training ended while nobody was connected; the end of its log:"
    tail -n 20 "$state/log" | sed "s/^/[$worker] /"
  else
    start "$@"
    exec 9>&-
    follow +1
  fi
  report
}

stop() {
  if flock -n "$state/lock" true; then
    echo "[$worker] No training runs."
  else
    until [[ -s "$state/program" ]]; do sleep 0.1; done # it has only just started
    kill -TERM "$(<"$state/program")"
  fi
}

case "${1:-}" in
  prepare) prepare "${@:2}" ;;
  run) run_or_follow "${@:2}" ;;
  train) train "${@:2}" ;;
  stop) stop ;;
  *) refuse "Unknown command '${1:-}'; the first lines of ${BASH_SOURCE[0]} list them." ;;
esac
