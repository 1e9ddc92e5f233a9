#!/usr/bin/env bash
# Runs one driver with what install.sh has installed. Usage: run.sh python|typescript|inspector ARG...
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CALLGATE_CLIENTS_DIR=$(realpath -m "${CALLGATE_CLIENTS_DIR:-$here/../../target/clients}")
export CALLGATE_CLIENTS_DIR

client=${1:-}
case $client in
  python) set -- "$CALLGATE_CLIENTS_DIR/python/bin/python" "$here/python/drive.py" "${@:2}" ;;
  # Not the system's Node: the Inspector needs Node 22.
  typescript | inspector) set -- "$CALLGATE_CLIENTS_DIR/npm/node" "$here/$client/drive.mjs" "${@:2}" ;;
  *)
    echo "usage: run.sh python|typescript|inspector ARG..." >&2
    exit 2
    ;;
esac
[ -x "$1" ] || {
  echo "$1 is missing: run $here/install.sh $CALLGATE_CLIENTS_DIR" >&2
  exit 2
}
exec "$@"
