"""Write labels.csv into a de-identified copy: the hospital's findings, under the new names of the pictures.

usage: label_copy.py FINDINGS PRIVATE COPY. FINDINGS has a line an accession, which is the folder that a picture lies
in. PRIVATE/files.jsonl, which stays with the hospital, says what each file became.
"""

import csv
import json
import sys
from pathlib import Path

findings, private, copy = map(Path, sys.argv[1:])
with findings.open(newline="") as table:
    finding_of = {line["accession"]: line["finding"] for line in csv.DictReader(table)}
became = [json.loads(line) for line in (private / "files.jsonl").read_text().splitlines()]
with (copy / "labels.csv").open("w", newline="") as table:
    out = csv.writer(table)
    out.writerow(["file", "finding"])
    for each in became:
        if each["action"] == "copied":
            out.writerow([each["copy"], finding_of[Path(each["source"]).parent.name]])
