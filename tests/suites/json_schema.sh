#!/usr/bin/env bash
# Installs the JSON-Schema-Test-Suite's 2020-12 cases into DIR/json-schema. They come from the pinned
# source distribution of the Python package `jsonschema`, which carries them. Does nothing when DIR has
# this version already. Usage: json_schema.sh DIR
set -euo pipefail

version=4.26.0
sha256=0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326

[ $# -eq 1 ] || {
  echo "usage: json_schema.sh DIR" >&2
  exit 2
}
mkdir -p "$1"
dir=$(cd "$1" && pwd)
stamp="$dir/json-schema/.stamp"
[ "$(cat "$stamp" 2>/dev/null)" != "$version $sha256" ] || exit 0

echo "test suites: installing the JSON-Schema-Test-Suite" >&2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# pip reads the metadata of a source distribution, for which it needs a virtual environment of its own.
python3 -m venv "$work/venv" >&2
"$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
  --no-binary jsonschema --dest "$work" "jsonschema==$version" >&2
echo "$sha256  $work/jsonschema-$version.tar.gz" | sha256sum --check --quiet >&2
tar -xzf "$work/jsonschema-$version.tar.gz" -C "$work"
rm -rf "$dir/json-schema"
mkdir "$dir/json-schema"
cp "$work/jsonschema-$version/json/tests/draft2020-12/"*.json "$dir/json-schema/"
echo "$version $sha256" >"$stamp"
