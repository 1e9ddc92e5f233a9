#!/usr/bin/env bash
# Installs what the drivers need into DIR, all pinned. Does nothing when DIR has these pins already.
# Usage: install.sh DIR
#
#   DIR/python/   a virtual environment with the Python SDK
#   DIR/npm/      the TypeScript SDK, the Inspector, and `node`
source "$(dirname "$0")/../parts.sh"

part_python() { # FOLDER WORK_FOLDER
  pip_in "$1" install --requirement "$here/python/requirements.txt"
}

part_npm() { # FOLDER WORK_FOLDER
  npm_in "$1" "$here"
  # One name for the binary, an optional dependency for each platform, whatever the platform.
  local node
  node=$(echo "$1"/node_modules/node-*/bin/node)
  [ -x "$node" ] || fail "no Node package for $(uname -sm)"
  ln -s "${node#"$1/"}" "$1/node"
}

part python "$here/python/requirements.txt" <(venv_pins)
part npm "$here/package.json" "$here/package-lock.json" <(uname -sm)
