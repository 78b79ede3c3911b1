#!/usr/bin/env bash
# Trains on a machine that is only lent, and leaves what is carried away from it:
#
#   bash launch/one_gpu.sh OUT --config=FILE --workdir=DIR [further arguments of score_jax.main]
#
#   OUT/adapters/      LoRA's adapters in PEFT's layout, of the newest checkpoint
#   OUT/state.tar.gz   the work directory less what is made again (compiled programs, event files, the
#                      page): unpacked into DIR elsewhere, the same command resumes
#
# LIMIT_SEC=N asks the training to save and stop after N seconds; the archive is made then too. PYTHON=
# sets the interpreter; the default is .venv's. The exit status is the training's.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$root/launch/common.sh"

out="${1:-}"
[[ -n "$out" && "$out" != -* ]] || refuse "Name the folder to write to first: bash $0 OUT --config=…"
shift
check_arguments "$@"
[[ -z "$in_bucket" ]] || refuse "--workdir=$workdir is in a bucket, and this script packs a local folder." \
  "Run python -m score_jax.main instead; --mode=export writes the adapters."
python="${PYTHON:-$root/.venv/bin/python}"
mkdir -p "$out"
cd "$root"

status=0
timeout --foreground --preserve-status --signal=TERM "${LIMIT_SEC:-0}" \
  "$python" -m score_jax.main "$@" || status=$?
if compgen -G "$workdir/checkpoints/*/*" >/dev/null; then
  tar -czf "$out/state.tar.gz" -C "$workdir" \
    --exclude=./compile_cache --exclude=./tensorboard --exclude=./report --exclude=./export .
  "$python" -m score_jax.main "$@" --mode=export --export_adapters --export_dir="$out/adapters" ||
    say "The adapters were not exported; $out/state.tar.gz has them."
  du -sh "$out/state.tar.gz" "$out/adapters" || true
fi
exit "$status"
