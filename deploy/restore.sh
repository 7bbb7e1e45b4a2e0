#!/usr/bin/env bash
# deploy/restore.sh FOLDER: a backup into an empty place (no volumes yet), with the .env of the old place or a new one.
# Ends with everything up and healthy. sources.yaml is put back only where there is none.
set -euo pipefail
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

[ $# = 1 ] && [ -d "$1" ] || fail "say which backup: deploy/restore.sh FOLDER"
from=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
[ -f "$from/SHA256SUMS" ] || fail "$from has no SHA256SUMS: it is no backup, or one that was not ended"
(cd "$from" && sha256sum --quiet -c SHA256SUMS) || fail "$from is damaged: take another backup"

config=$(docker compose config --format json | python3 -c '
import json, sys
volumes = json.load(sys.stdin)["services"]["code"]["volumes"]
print(next(v["source"] for v in volumes if v["target"] == "/config"))')
mkdir -p "$config"
tar -C "$config" --skip-old-files -xf "$from/config.tar"

say "PostgreSQL"
docker compose up -d --wait postgres
for name in dagster superset; do
  tables=$(docker compose exec -T postgres psql -U postgres -d "$name" -Atc \
    "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
  [ "$tables" = 0 ] || fail "the database $name holds $tables tables already: restore into an empty place (docker compose down --volumes removes what is there)"
done
say "data home"
docker compose run --rm -T --no-deps code restore - --home /data <"$from/data.tar" || fail "the data home could not be filled"
for name in dagster superset; do
  say "database $name"
  docker compose exec -T postgres pg_restore -U postgres -d "$name" --no-owner --role="$name" --exit-on-error <"$from/$name.dump"
done
say "everything"
docker compose up -d --wait
say "done"
