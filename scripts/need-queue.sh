#!/usr/bin/env bash
# Tests of scheduled reports use Debian's Redis and Chromium's driver; says in one line what is missing, or installs it.
set -euo pipefail
missing=""
command -v redis-server >/dev/null || missing="redis-server"
command -v chromedriver >/dev/null || missing="$missing chromium-driver"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "  installing for the tests of scheduled reports: $missing"
  # shellcheck disable=SC2086 # a list of packages
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
  exit 0
fi
echo "missing for the tests of scheduled reports: $missing (Debian: sudo apt-get install $missing)" >&2
exit 1
