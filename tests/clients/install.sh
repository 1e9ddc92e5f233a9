#!/usr/bin/env bash
# Installs what the drivers need into DIR: a Python venv and the npm packages, both pinned.
# Does nothing when DIR has these pins already. Usage: install.sh DIR
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { echo "test clients: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

[ $# -eq 1 ] || {
  echo "usage: install.sh DIR" >&2
  exit 2
}
for tool in python3 npm flock sha256sum; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Test binaries that start at the same time shall not install over each other.
exec 9>"$dir/.lock"
flock 9

# A part is up to date when its stamp equals the hash of what it was made from.
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_current() { [ "$(cat "$dir/$1/.stamp" 2>/dev/null)" = "$2" ]; }

# A venv works only where it was made and with the Python it was made with: both count as pins.
python_pins=$(hash_of "$here/python/requirements.txt" <(python3 -VV; echo "$dir"))
if ! is_current python "$python_pins"; then
  say "installing the Python SDK"
  rm -rf "$dir/python"
  python3 -m venv "$dir/python" >&2 || fail "python3 -m venv failed (Debian: is python3-venv installed?)"
  "$dir/python/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$here/python/requirements.txt" >&2 || fail "pip failed"
  echo "$python_pins" >"$dir/python/.stamp"
fi

npm_pins=$(hash_of "$here/package.json" "$here/package-lock.json" <(uname -sm))
if ! is_current npm "$npm_pins"; then
  say "installing the TypeScript SDK, the Inspector and Node"
  rm -rf "$dir/npm"
  mkdir "$dir/npm"
  cp "$here/package.json" "$here/package-lock.json" "$dir/npm/"
  # No package needs its install scripts here; the Node binary is an optional (per platform) dependency.
  (cd "$dir/npm" && npm ci --ignore-scripts --include=optional --no-audit --no-fund --loglevel=error) >&2 ||
    fail "npm failed"
  # One name for the binary, whatever the platform.
  node=$(echo "$dir"/npm/node_modules/node-*/bin/node)
  [ -x "$node" ] || fail "no Node package for $(uname -sm)"
  ln -s "${node#"$dir/npm/"}" "$dir/npm/node"
  echo "$npm_pins" >"$dir/npm/.stamp"
fi
