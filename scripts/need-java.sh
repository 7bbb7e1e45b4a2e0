#!/usr/bin/env bash
# A Spark cluster for the heavy proofs runs on Java 17 or newer; says in one line what is missing, or installs it.
set -euo pipefail
version=$(java -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p') || version=
[ "${version:-0}" -ge 17 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "  installing Java 17 for the Spark cluster of the heavy proofs"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null
  exit 0
fi
echo "Java 17 is missing for the Spark cluster: install it (Debian: sudo apt-get install openjdk-17-jre-headless)" >&2
exit 1
