#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster, as a JobSet that the cluster restarts:
#
#   bash launch/gke.sh --name=NAME --image=IMAGE --accelerator=A --topology=T --claim=CLAIM [OPTION …] -- ARGUMENTS …
#
#   --image=IMAGE              built with launch/Dockerfile and pushed to the cluster's registry
#   --accelerator=tpu-v5-lite-podslice --topology=4x4    labels of the node pool in GKE
#   --claim=CLAIM              a PersistentVolumeClaim that all hosts can write, mounted as
#                              /mnt/score_jax; --workdir is a folder in it. Not needed if
#                              --workdir=gs://BUCKET/PATH, which the pods' account can write
#   --spot                     for a node pool of spot VMs
#   --chips=4                  chips per host; default: the usual number for the topology
#   --namespace=default
#   --restarts=20              most restarts of a stopped run
#   --grace=120                seconds to save before a stop; spot VMs get fewer
#   --dry-run                  prints the commands and the manifest, and runs nothing
#
# ARGUMENTS go to score_jax.main on every host. The script shows logs until the run ends: exit status 0
# done, 2 bad input, 1 anything else. Ctrl-C stops showing logs only. The same command shows the run
# again, and starts a new one if it has ended. Needs kubectl, logged in, and JobSet on the cluster.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name="" image="" accelerator="" topology="" claim="" spot="" chips="" namespace=default
restarts=20 grace=120
look_sec="${LOOK_SEC:-10}"

while (($#)); do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --image=*) image="${1#*=}" ;;
    --accelerator=*) accelerator="${1#*=}" ;;
    --topology=*) topology="${1#*=}" ;;
    --claim=*) claim="${1#*=}" ;;
    --spot) spot=yes ;;
    --chips=*) chips="${1#*=}" ;;
    --namespace=*) namespace="${1#*=}" ;;
    --restarts=*) restarts="${1#*=}" ;;
    --grace=*) grace="${1#*=}" ;;
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
  # The longest name derived from it is that of a pod, NAME-slice-0-HOST-xxxxx, which is a host name.
  [[ "$name" =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || refuse "--name=$name: use lower-case letters," \
    "digits and dashes, with a letter first, and at most 40 characters."
  [[ -n "$image" ]] || refuse "--image=IMAGE is missing. The first line of launch/Dockerfile builds one."
  [[ "$accelerator" == tpu* ]] || refuse "--accelerator=$accelerator: give the node pool's label" \
    "cloud.google.com/gke-tpu-accelerator, e.g. tpu-v5-lite-podslice, tpu-v5p-slice or tpu-v6e-slice."
  [[ "$topology" =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || refuse "--topology=$topology: give the node" \
    "pool's label cloud.google.com/gke-tpu-topology, e.g. 4x4 or 2x2x4."
  [[ -n "$claim$in_bucket" ]] || refuse "--claim=CLAIM is missing: the run needs a volume that outlives" \
    "its pods, or --workdir=gs://BUCKET/PATH. \`kubectl get persistentvolumeclaims\` lists volumes."
  [[ -n "$in_bucket" || "$workdir" == /mnt/score_jax/?* ]] || refuse "--workdir=$workdir is not on the" \
    "volume. Name a folder in /mnt/score_jax, e.g. /mnt/score_jax/runs/first."
  [[ "$restarts$grace" =~ ^[0-9]+$ ]] || refuse "--restarts and --grace must be whole numbers."
  local total=$((${topology//x/*}))
  chips="${chips:-$(chips_of_a_host "$total")}"
  if [[ ! "$chips" =~ ^[1-9][0-9]*$ ]] || ((total % chips)); then
    refuse "--chips=$chips does not divide the $total chips of a slice of $topology."
  fi
  hosts=$((total / chips))
}

# A host has 4 chips, or 1 or 8 if the whole slice is one host.
chips_of_a_host() { # CHIPS OF THE SLICE
  case "$topology" in
    2x4) echo 8 ;;
    *) echo "$(($1 < 4 ? $1 : 4))" ;;
  esac
}

# A word as a YAML string, in double quotes as in JSON. Kubernetes reads $$ as $ and $(…) as a variable.
yaml() {
  local word="${1//\\/\\\\}" dollars='$$'
  word="${word//\$/$dollars}"
  word="${word//\"/\\\"}"
  word="${word//$'\n'/\\n}"
  printf '"%s"' "${word//$'\t'/\\t}"
}

manifest() { # ARGUMENTS …
  local argument
  cat <<EOF
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  namespace: $namespace
  annotations:
    # All hosts are in one node pool, which is one slice and has no other run.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    # After status 75, a lost node or a crash all hosts restart, from the newest checkpoint.
    maxRestarts: $restarts
    rules:
      # Bad input does not change by a restart.
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          completions: $hosts
          parallelism: $hosts
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: score-jax
                  operator: In
                  values: [2]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $grace
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: $accelerator
                cloud.google.com/gke-tpu-topology: $(yaml "$topology")
EOF
  [[ -z "$spot" ]] || cat <<EOF
                cloud.google.com/gke-spot: "true"
              tolerations:
                - key: cloud.google.com/gke-spot
                  operator: Equal
                  value: "true"
                  effect: NoSchedule
EOF
  cat <<EOF
              containers:
                - name: score-jax
                  image: $(yaml "$image")
                  command: [python, -u, -m, score_jax.main]
                  args:
EOF
  for argument in "$@"; do
    echo "                    - $(yaml "$argument")"
  done
  cat <<EOF
                  resources:
                    limits:
                      google.com/tpu: $chips
EOF
  [[ -z "$claim" ]] || cat <<EOF
                  volumeMounts:
                    - name: runs
                      mountPath: /mnt/score_jax
              volumes:
                - name: runs
                  persistentVolumeClaim:
                    claimName: $claim
EOF
}

# The commands

k8s() { # VERB ARGUMENTS …
  run kubectl "$@" "--namespace=$namespace"
}

look() { # JSONPATH
  k8s get jobset "$name" "--output=jsonpath=$1"
}

pods=("--selector=jobset.sigs.k8s.io/jobset-name=$name")

apply() { # ARGUMENTS …
  if [[ -n "$dry_run" ]]; then
    echo "kubectl apply --filename=- --namespace=$namespace <<'EOF'"
    manifest "$@"
    echo EOF
  else
    manifest "$@" | k8s apply --filename=-
  fi
}

delete() {
  k8s delete jobset "$name"
}

show_logs() { # HOW …
  k8s logs "${pods[@]}" --container=score-jax --prefix "--max-log-requests=$hosts" "$@"
}

phases() {
  k8s get pods "${pods[@]}" "--output=jsonpath={.items[*].status.phase}"
}

exit_codes() {
  k8s get pods "${pods[@]}" "--output=jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}"
}

check_arguments "$@"
check_options

if [[ -n "$dry_run" ]]; then
  echo "# If a JobSet of this name has ended, it is deleted first. A running one is kept."
  k8s get jobset "$name" --ignore-not-found "--output=jsonpath={.status.terminalState}"
  apply "$@"
  echo "# Until it ends: its state and logs."
  look '{.status.terminalState} {.status.restarts}'
  phases
  show_logs --follow --tail=-1
  echo "# To stop it (it saves; the same command resumes):"
  delete
  exit
fi

ended="$(k8s get jobset "$name" --ignore-not-found "--output=jsonpath={.status.terminalState}")" || {
  say "kubectl cannot list JobSets; see above. Log in to the cluster, and install JobSet on it if it is" \
    "missing."
  exit 1
}
[[ -z "$ended" ]] || delete
apply "$@" || {
  say "The JobSet was not accepted; see above. If there is one of this name with other arguments, delete" \
    "it first: $(dry_run=yes delete)"
  exit 1
}
trap 'say "$name continues. To stop it: $(dry_run=yes delete)"; exit 130' INT TERM

no_answer() {
  say "The cluster does not answer; see above. $name continues. The same command shows its log again."
  exit 1
}

restarted=0 seen=""
while :; do
  state="$(look '{.status.terminalState} {.status.restarts}')" || no_answer
  case "$state" in
    Completed*)
      say "Done. The JobSet and its logs stay. To delete them: $(dry_run=yes delete)"
      exit 0
      ;;
    Failed*)
      codes="$(exit_codes)" || no_answer
      show_logs --tail=20 >&2 || true
      say "Failed. Exit statuses of the hosts: ${codes:-none left}. The JobSet and its logs stay. To delete" \
        "them: $(dry_run=yes delete)"
      [[ " $codes " != *" 2 "* ]] || exit 2
      exit 1
      ;;
  esac
  now="${state##* }" # empty before the first restart
  if ((${now:-0} > restarted)); then
    restarted="$now"
    say "Restarted, $restarted of $restarts."
  fi
  pending="$(phases)" || no_answer
  if [[ "$pending" == *Running* && "$pending" != *Pending* ]]; then
    show_logs --follow --tail=-1 || true # ends with the pods, or with the connection
  elif [[ "$pending" != "$seen" ]]; then
    say "Hosts: ${pending:-none yet}. To see why a host waits: kubectl describe pods ${pods[*]} --namespace=$namespace"
  fi
  seen="$pending"
  sleep "$look_sec"
done
