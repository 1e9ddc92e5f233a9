#!/usr/bin/env bash
# Installs the official conformance suite into DIR, a folder for each version, pinned. Does nothing when DIR
# has these pins already. Usage: install.sh DIR
#
#   DIR/VERSION/   the suite, in node_modules; the Node that runs it is that of the test clients
source "$(dirname "$0")/../parts.sh"

part_0.1.16() { npm_in "$1" "$here/0.1.16"; }                 # FOLDER WORK_FOLDER
part_0.2.0-alpha.12() { npm_in "$1" "$here/0.2.0-alpha.12"; } # FOLDER WORK_FOLDER

for version in 0.1.16 0.2.0-alpha.12; do
  part "$version" "$here/$version/package.json" "$here/$version/package-lock.json"
done
