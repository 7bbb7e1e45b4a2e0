#!/usr/bin/env bash
# Installs both environments from their locks, unless they are as the locks say. Run again at any time.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '  %s\n' "$*"; }
fail() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

PYTHON=${PYTHON:-python3}
UV_VERSION=0.13.9

command -v git >/dev/null || fail "git is missing: install it (Debian: apt-get install git)"
command -v "$PYTHON" >/dev/null || fail "$PYTHON is missing: install Python 3.11, or name it: make PYTHON=/path/to/python3.11"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = 3.11 ] || fail "$PYTHON is Python $version, and 3.11 is needed: name one with PYTHON=/path/to/python3.11"

if [ ! -x .tools/uv/bin/uv ]; then
  say "installing uv $UV_VERSION into .tools"
  "$PYTHON" -m venv .tools/uv 2>/dev/null || fail "$PYTHON cannot make environments: install its venv module (Debian: apt-get install python3.11-venv)"
  .tools/uv/bin/python -m pip install -q --disable-pip-version-check "uv==$UV_VERSION"
fi
uv=.tools/uv/bin/uv

# environment FOLDER LOCK WHAT [FILE]: brings an environment to its lock; a stamp of the lock (and of the file that
# our own package is installed from) makes the second time free
environment() {
  local folder=$1 lock=$2 what=$3 stamp
  stamp=$(cat "$lock" ${4:+"$4"} | sha256sum | cut -d' ' -f1)
  [ -x "$folder/bin/python" ] && [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
  say "installing $what from $lock"
  [ -x "$folder/bin/python" ] || "$uv" venv -q --python "$(command -v "$PYTHON")" "$folder"
  VIRTUAL_ENV=$folder "$uv" pip sync -q --python "$folder/bin/python" "$lock"
  if [ "$folder" = .venv ]; then
    VIRTUAL_ENV=$folder "$uv" pip install -q --python "$folder/bin/python" --no-deps -e .
  fi
  echo "$stamp" >"$folder/.stamp"
}

environment .venv requirements.lock "the pipeline's environment" pyproject.toml
environment .venv-superset superset/requirements.lock "Superset's environment"
if [ "${1:-}" = benchmarks ]; then
  environment .venv-benchmarks benchmarks/requirements.lock "the peers that benchmarks compare with"
fi
if [ "${1:-}" = tools ]; then
  environment .venv-tools pins/tools.lock "what looks at our packages"
fi
if [ "${1:-}" = docs ]; then
  environment .venv-docs pins/docs.lock "what builds the documentation"
fi

# the client of `ingest.engine: spark` goes into the pipeline's environment, once it was asked for and from then on
client=.venv/.spark
if [[ "${1:-}" == spark* ]] || [ -e "$client" ]; then
  stamp=$(cat .venv/.stamp spark/client.lock | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$client" 2>/dev/null)" != "$stamp" ]; then
    say "installing the client of Spark from spark/client.lock"
    VIRTUAL_ENV=.venv "$uv" pip install -q --python .venv/bin/python -r spark/client.lock
    echo "$stamp" >"$client"
  fi
fi
if [ "${1:-}" = spark-cluster ]; then
  environment .venv-spark spark/cluster.lock "Spark for the heavy proofs"
fi
