#!/usr/bin/env bash
# deploy/upgrade.sh FOLDER: what is checked out here takes the place of what runs, after a backup into FOLDER.
# Images are built first. Then the pipeline is changed over and makes the numbers that new pages show, while the old pages
# stay up; then the dashboards, which are away for a minute or two: set-up migrates Superset's database and brings
# dashboards and roles to what the tree says. A run that is under way is ended and tried again: best between two.
set -euo pipefail
[ $# = 1 ] || { echo "say where the backup goes: deploy/upgrade.sh FOLDER" >&2; exit 1; }
folder=$(realpath -m "$1")
cd "$(dirname "$0")/.."
. deploy/common.sh

trap 'fail "stopped before anything was changed: what ran runs on. Images may be the new ones already: before any other
docker compose up, run this script again, or check out what was there and docker compose build"' ERR
say "building"
docker compose build
say "backup into $folder"
deploy/backup.sh "$folder"

trap 'fail "stopped while changing over; docker compose ps and logs say what is wrong, and this script may be run again (with a new folder).
Back to what was there: check it out, build it (docker compose build), see that the backup is whole
(cd $folder && sha256sum -c SHA256SUMS), and only then: docker compose --profile \"*\" down --volumes; deploy/restore.sh $folder"' ERR
say "changing over the pipeline"
docker compose up -d --wait code webserver daemon
say "numbers of this version, beside the pages of before"
docker compose exec -T code usage refresh ||
  say "the refresh failed: charts that are new in this version stay without numbers until one succeeds"
say "changing over everything else"
docker compose up -d --wait --remove-orphans
docker compose logs --no-log-prefix superset-set-up | grep " fails: " || true
say "done"
