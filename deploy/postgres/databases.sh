#!/bin/sh
# Run once, by the image, on an empty volume: a database and a user each for Dagster and Superset, who see only their own.
set -eu
for name in dagster superset; do
  case $name in dagster) word=$DAGSTER_DB_PASSWORD ;; superset) word=$SUPERSET_DB_PASSWORD ;; esac
  psql -v ON_ERROR_STOP=1 --no-psqlrc -q -U postgres -v name="$name" -v word="$word" <<'SQL'
CREATE ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'word';
CREATE DATABASE :"name" OWNER :"name" TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
