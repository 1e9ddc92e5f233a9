# What the installers of the tests share. Each sources it with its own arguments, and installs its parts:
#
#   part NAME PIN_FILE...    a folder DIR/NAME, filled by the function `part_NAME FOLDER WORK_FOLDER`
#
# FOLDER exists and is empty, WORK_FOLDER is gone afterwards. A part is not installed again while its pins stay.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

say() { echo "test ${here##*/}: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

[ $# -eq 1 ] || {
  echo "usage: $0 DIR" >&2
  exit 2
}
for tool in cargo python3 npm flock sha256sum; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Test binaries that start at the same time shall not install over each other.
exec 9>"$dir/.lock"
flock 9
trap 'rm -rf "$dir/.work"' EXIT

part() {
  local name=$1 pins
  shift
  pins=$(cat "$@" | sha256sum | cut -d' ' -f1)
  [ "$(cat "$dir/$name/.stamp" 2>/dev/null)" != "$pins" ] || return 0
  say "installing $name"
  rm -rf "${dir:?}/$name" "$dir/.work"
  mkdir "$dir/$name" "$dir/.work"
  "part_$name" "$dir/$name" "$dir/.work"
  # Last, so that a part that was not finished is begun anew.
  echo "$pins" >"$dir/$name/.stamp"
}

# Runs pip in a virtual environment, which is made where there is none.
pip_in() { # FOLDER ARGUMENT...
  local folder=$1
  shift
  [ -x "$folder/bin/python" ] || python3 -m venv "$folder" >&2 ||
    fail "python3 -m venv failed (Debian: is python3-venv installed?)"
  "$folder/bin/python" -m pip --quiet --disable-pip-version-check "$@" >&2 || fail "pip failed"
}

# A venv works only where it was made and with the Python it was made with: both count as pins.
venv_pins() {
  python3 -VV
  echo "$dir"
}

# Installs npm packages into a folder. None needs its install scripts here.
npm_in() { # FOLDER PIN_FOLDER
  cp "$2/package.json" "$2/package-lock.json" "$1/"
  (cd "$1" && npm ci --ignore-scripts --include=optional --no-audit --no-fund --loglevel=error) >&2 ||
    fail "npm failed"
}
