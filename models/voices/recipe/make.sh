#!/bin/sh
# Makes the ten clips and their table again from nothing, in a few minutes: make.sh [FOLDER for the environment]
# Needs Python 3.11, espeak-ng (1.51 made these clips) and a package registry.
set -eu
cd "$(dirname "$0")"
environment=${1:-../../../build/voices}
[ -e "$environment/bin/python" ] || python3 -m venv "$environment"
"$environment/bin/pip" install --quiet --requirement requirements.txt
"$environment/bin/python" make.py
"$environment/bin/python" check.py
