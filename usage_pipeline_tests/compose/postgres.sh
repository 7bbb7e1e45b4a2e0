#!/bin/sh
# What the official image does on an empty volume, as far as docker-compose.yml leans on it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?}"
  printf '%s' "$POSTGRES_PASSWORD" >/tmp/word
  # shellcheck disable=SC2086
  initdb -D "$PGDATA" -U postgres --pwfile=/tmp/word $POSTGRES_INITDB_ARGS >/dev/null
  rm /tmp/word
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=" -w start >/dev/null
  for file in /docker-entrypoint-initdb.d/*.sh; do sh "$file"; done
  pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*"
