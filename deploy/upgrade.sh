#!/usr/bin/env bash
# deploy/upgrade.sh FOLDER: what is checked out here takes the place of what runs, after a backup into FOLDER.
# Images are built first, so that pages are away only for the change itself; set-up migrates both databases and brings
# dashboards and roles to what the tree says. If it fails: check out what was there, `docker compose down --volumes`,
# and deploy/restore.sh FOLDER.
set -euo pipefail
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }

[ $# = 1 ] || { echo "say where the backup goes: deploy/upgrade.sh FOLDER" >&2; exit 1; }
folder=$(realpath -m "$1")
cd "$(dirname "$0")/.."
say "building"
docker compose build
say "backup into $folder"
deploy/backup.sh "$folder"
say "changing over"
docker compose up -d --wait --remove-orphans
say "done"
