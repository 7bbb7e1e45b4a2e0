#!/usr/bin/env bash
# The browser tests drive Debian's Chromium; says in one line what is missing, or installs it where it may.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "  installing Chromium for the browser tests"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
  exit 0
fi
echo "Chromium is missing for the browser tests: install it (Debian: sudo apt-get install chromium)" >&2
exit 1
