#!/usr/bin/env bash
# deploy/restore.sh FOLDER: a backup into an empty place (no containers, no volumes), with the .env of the old place or a
# new one. Ends with everything up and healthy. sources.yaml is put back only where there is none.
# Beside a deployment that runs on the same machine: a checkout of its own, and in its .env COMPOSE_PROJECT_NAME and ports
# of its own. What is restored writes to people as the original does: for a rehearsal USAGE_DISABLE_NOTIFICATIONS=1 in its .env.
set -euo pipefail
[ $# = 1 ] && [ -d "$1" ] || { echo "say which backup: deploy/restore.sh FOLDER" >&2; exit 1; }
from=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
. deploy/common.sh

[ -f "$from/SHA256SUMS" ] || fail "$from has no SHA256SUMS: it is no backup, or one that was not ended"
(cd "$from" && sha256sum --quiet -c SHA256SUMS) || fail "$from is damaged: take another backup"

# before anything is touched: another checkout on this machine has the same name, unless it was told another
project=$(said_by_compose 'found["name"]')
there="$(docker ps -aq --filter "label=com.docker.compose.project=$project")$(
  docker volume ls -q --filter "label=com.docker.compose.project=$project")"
[ -z "$there" ] || fail "restore into an empty place: the project '$project' has containers or volumes on this machine.
For a second place beside it: COMPOSE_PROJECT_NAME, USAGE_VERSION, SUPERSET_PORT and DAGSTER_PORT of its own in .env.
Only if all that '$project' holds may be lost: docker compose -p $project --profile '*' down --volumes"
silent=$(said_by_compose 'found["services"]["code"]["environment"]["USAGE_DISABLE_NOTIFICATIONS"]')
[ "$silent" != 0 ] || say "it will write to people, as the original does: USAGE_DISABLE_NOTIFICATIONS=1 in .env if this is a rehearsal"

config=$(config_folder)
mkdir -p "$config"
tar -C "$config" --skip-old-files -xf "$from/config.tar"

say "PostgreSQL"
docker compose up -d --wait postgres
say "data home"
docker compose run --rm -T --no-deps code restore - --home /data <"$from/data.tar" || fail "the data home could not be filled"
for name in dagster superset; do
  say "database $name"
  docker compose exec -T postgres pg_restore -U postgres -d "$name" --no-owner --role="$name" --exit-on-error <"$from/$name.dump"
done
say "outcomes that people recorded"
# the pipeline has the copies, and Superset alone may write where its form reads them
docker compose run --rm -T --no-deps code outcomes export |
  docker compose run --rm -T --no-deps superset bring-back-outcomes ||
  say "not all of them are on the form, which nothing else rests on. When all is up:
  docker compose exec -T code usage outcomes export | docker compose exec -T superset usage bring-back-outcomes"
say "everything"
docker compose up -d --wait
say "done"
