#!/usr/bin/env bash
# usage: run.sh [FOLDER] [BIN]  - make the exports in FOLDER, de-identify them, train two rounds, score a new picture, with
# the programs in BIN. EPOCHS=50 trains as long as the task file says.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) folder=${1:-$(mktemp -d)} bin=${2:+$2/}
"${bin}python" "$here/make_data.py" "$folder/exports" "${PATIENTS:-22}"

for hospital in Northgate Southfield; do  # at each hospital: a clean copy, and findings under the copy's names
    "${bin}medfed" site deidentify "$folder/exports/$hospital/export" "$folder/copies/$hospital" \
        --private "$folder/private/$hospital" --key "$folder/private/$hospital.key"
    "${bin}python" "$here/label_copy.py" \
        "$folder/exports/$hospital/findings.csv" "$folder/private/$hospital" "$folder/copies/$hospital"
done

"${bin}medfed" run "$here/federated_task.yaml" --data "$folder/copies" --output "$folder/run" --quiet \
    --set federation.epochs="${EPOCHS:-2}"
test -s "$folder/run/report.html"
if grep -rqaE "Müller|Nowak|NO1[0-9]{4}|SO1[0-9]{4}" "$folder/run" "$folder/copies"; then
    echo "an identifier of a patient is in the run or in a copy" >&2
    exit 1
fi
echo "report: $folder/run/report.html"

mkdir -p "$folder/new"  # one clean picture, without a finding
cp "$(find "$folder/copies/Southfield" -name '*.dcm' | sort | head -1)" "$folder/new/"
"${bin}medfed" predict "$folder/run" "$folder/new"

mkdir -p "$folder/phantoms"
"${bin}python" "$here/make_archive.py" "$folder/phantoms/phantoms.npz" 200
"${bin}medfed" check "$here/unlike_scanners.yaml" --data "$folder/phantoms" >/dev/null

pneumonia="$here/../../../shared/data/pneumonia"
if [ -f "$pneumonia/pneumoniamnist.npz" ]; then
    "${bin}medfed" run "$here/pneumonia.yaml" --data "$pneumonia" --output "$folder/pneumonia" --quiet
    test -s "$folder/pneumonia/report.html"
else
    echo "skipped: pneumonia.yaml, since $pneumonia/pneumoniamnist.npz is not there"
fi
