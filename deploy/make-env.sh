#!/usr/bin/env bash
# deploy/make-env.sh: a .env from .env.example with random secrets, readable by its owner only, and the folder `config`,
# which Docker would make as root. Never replaces what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -e .env ] || { echo ".env is there already; remove it first, if its secrets may be lost" >&2; exit 1; }
[ -d config ] || mkdir -m 755 config
umask 077
while IFS= read -r line; do
  case $line in
    *_PASSWORD= | SUPERSET_SECRET_KEY= | DEMO_STORE_*=)
      case $line in USAGE_SMTP_*) printf '%s\n' "$line"; continue ;; esac
      line="$line$(head -c 36 /dev/urandom | base64 | tr '+/' '-_')" ;;
  esac
  printf '%s\n' "$line"
done <.env.example >.env
echo ".env written: look through it, then docker compose up -d --wait"
