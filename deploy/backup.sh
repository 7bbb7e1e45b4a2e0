#!/usr/bin/env bash
# deploy/backup.sh FOLDER: all that a deployment has to keep, into a new folder, while it runs.
#   dagster.dump, superset.dump   the two databases, as pg_restore reads them
#   data.tar                      facts, history, models, warehouse, builds, status, the list of the erased
#   config.tar                    sources.yaml and what lies beside it
#   SHA256SUMS                    written last: a folder without it is not whole
# Not in it: .env. Keep its secrets apart; without SUPERSET_SECRET_KEY people log in anew, nothing else is lost. Where there is a
# USAGE_CONTACTS_KEY, nobody opens the contacts of this backup without the one of its time.
# It holds personal data: keep it where only those may read who may see contacts.
set -euo pipefail
[ $# = 1 ] || { echo "say where to: deploy/backup.sh FOLDER" >&2; exit 1; }
to=$(realpath -m "$1")
cd "$(dirname "$0")/.."
. deploy/common.sh

[ ! -e "$to" ] || [ -z "$(ls -A "$to")" ] || fail "$to holds something already: name a new folder"
umask 077
mkdir -p "$to"

say "databases of Dagster and Superset"
for name in dagster superset; do
  docker compose exec -T postgres pg_dump -U postgres --format=custom "$name" >"$to/$name.dump" ||
    fail "the database $name could not be read: is postgres up? (docker compose ps)"
done
say "data home: a run that writes is waited for"
docker compose exec -T code usage backup - >"$to/data.tar" || fail "the data home could not be packed"
config=$(config_folder)
if [ -d "$config" ]; then tar -C "$config" -cf "$to/config.tar" .; else tar -cf "$to/config.tar" -T /dev/null; fi
(cd "$to" && sha256sum dagster.dump superset.dump data.tar config.tar >SHA256SUMS)
say "done: $(du -sh "$to" | cut -f1) in $to"
