#!/usr/bin/env bash
# deploy/backup.sh FOLDER: all that a deployment has to keep, into a new folder, while it runs.
#   dagster.dump, superset.dump   the two databases, as pg_restore reads them
#   data.tar                      facts, ledger, models, warehouse, builds, status, the list of the erased
#   config.tar                    sources.yaml and what lies beside it
#   SHA256SUMS                    written last: a folder without it is not whole
# Not in it: .env. Keep its secrets apart; without SUPERSET_SECRET_KEY people log in anew, nothing else is lost.
# It holds personal data: keep it where only those may read who may see contacts. Compose is steered as usual
# (COMPOSE_FILE, COMPOSE_PROJECT_NAME, --env-file as COMPOSE_ENV_FILES).
set -euo pipefail
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

[ $# = 1 ] || fail "say where to: deploy/backup.sh FOLDER"
to=$1
[ ! -e "$to" ] || [ -z "$(ls -A "$to")" ] || fail "$to holds something already: name a new folder"
umask 077
mkdir -p "$to"
to=$(cd "$to" && pwd)
cd "$(dirname "$0")/.."

say "databases of Dagster and Superset"
for name in dagster superset; do
  docker compose exec -T postgres pg_dump -U postgres --format=custom "$name" >"$to/$name.dump" ||
    fail "the database $name could not be read: is postgres up? (docker compose ps)"
done
say "data home: a run that is under way is waited for"
docker compose exec -T code usage backup - >"$to/data.tar" || fail "the data home could not be packed"
config=$(docker compose config --format json | python3 -c '
import json, sys
volumes = json.load(sys.stdin)["services"]["code"]["volumes"]
print(next(v["source"] for v in volumes if v["target"] == "/config"))')
if [ -d "$config" ]; then tar -C "$config" -cf "$to/config.tar" .; else tar -cf "$to/config.tar" -T /dev/null; fi
(cd "$to" && sha256sum dagster.dump superset.dump data.tar config.tar >SHA256SUMS)
say "done: $(du -sh "$to" | cut -f1) in $to"
