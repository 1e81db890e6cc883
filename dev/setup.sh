#!/usr/bin/env bash
# Brings uv and the locked dependencies, and says what it installs. Silent when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

if ! command -v uv >/dev/null; then
  if python3 -m pip --version >/dev/null 2>&1 && python3 -m pip install --quiet --user uv 2>/dev/null; then
    say "installed uv with pip into ~/.local"
  else # Debian's Python is externally managed, and may come without venv
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
      [ "$(id -u)" = 0 ] || { say "python3-venv is missing: sudo apt-get install python3-venv"; exit 1; }
      say "installing python3-venv with apt-get"
      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    fi
    say "installing uv into .stack/uv"
    python3 -m venv .stack/uv && .stack/uv/bin/pip install --quiet uv
  fi
fi

# A link, not a copy, would break when the cache is on another file system; uv copies then and says so.
stamp=.venv/.locked
if [ ! -e "$stamp" ] || [ uv.lock -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
  say "installing the locked Python dependencies into .venv"
  # A distribution's Python is built with profile-guided optimisation and half again as fast as what pyenv builds.
  system=/usr/bin/python3
  "$system" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || system=
  uv sync --locked --quiet --group dev --all-extras ${system:+--python "$system"} && touch "$stamp"
fi
