#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - a guest and a host in folders of their own below FOLDER, with the programs in BIN
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) folder=${1:-$(mktemp -d)} bin=${2:+$(realpath "$2")/}
"${bin}python" "$here/make_data.py" "$folder/rows"

party() {  # ROLE NUMBER PARTY_CONFIG: the same command as on a machine of its own; "yes" is a person's answer
    mkdir -p "$folder/$1/local_data"
    cp "$folder/rows/$2/patients.csv" "$folder/$1/local_data/"
    cd "$folder/$1"
    echo yes | MEDFED_HOME="$folder/$1/home" "${bin}python" "$here/../../federated_train.py" \
        --config "$here/federated_task.yaml" --data ./local_data --output ./model_weights \
        --party_config "$here/$3" --reconnect_interval 1
}

(party host 10000 host_party_config.json >"$folder/host.log" 2>&1) &
host=$!
trap 'kill $host 2>/dev/null || true' EXIT
(party guest 9999 party_config.json)
wait $host
cmp "$folder/guest/model_weights/model.safetensors" "$folder/host/model_weights/model.safetensors"
test -s "$folder/guest/model_weights/report.html"
