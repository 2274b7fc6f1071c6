#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - make the data in FOLDER and run both tasks, with the programs in BIN
set -euo pipefail
here=$(dirname "$0") folder=${1:-$(mktemp -d)} bin=${2:+$2/}
"${bin}python" "$here/make_data.py" "$folder/data"
"${bin}medfed" run "$here/source.yaml" --data "$folder/data" --output "$folder/source" --quiet
"${bin}medfed" run "$here/target.yaml" --data "$folder/data" --output "$folder/run" --quiet \
    --from "$folder/source" --set model.pretrained.head=new --set 'model.freeze=[0]'
grep -q "with a new last layer" "$folder/run/model_card.md"
