#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - make the data in FOLDER and run the task, with the programs in BIN
set -euo pipefail
here=$(dirname "$0") folder=${1:-$(mktemp -d)} bin=${2:+$2/}
"${bin}python" "$here/make_data.py" "$folder/data"
"${bin}medfed" run "$here/task.yaml" --data "$folder/data" --output "$folder/run" --quiet
test -s "$folder/run/report.html"
