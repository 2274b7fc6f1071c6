#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - make the data in FOLDER and compare strategies, with the programs in BIN
set -euo pipefail
here=$(dirname "$0") folder=${1:-$(mktemp -d)} bin=${2:+$2/}
"${bin}python" "$here/make_data.py" "$folder/data"
"${bin}medfed" compare "$here/task.yaml" --data "$folder/data" --output "$folder/comparison" --quiet
test -s "$folder/comparison/report.html"
