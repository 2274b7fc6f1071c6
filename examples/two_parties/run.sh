#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - make the parties' folders in FOLDER and train, with the programs in BIN
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) folder=${1:-$(mktemp -d)} bin=${2:+$2/}
"${bin}python" "$here/make_data.py" "$folder/local_data"
"${bin}python" "$here/../../federated_train.py" --config "$here/federated_task.yaml" --data "$folder/local_data" \
    --output "$folder/model_weights" --party_config "$here/party_config.json"
test -s "$folder/model_weights/model.safetensors"
