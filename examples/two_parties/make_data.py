"""Write the folders of two parties, a guest and a host, from the breast-cancer data that scikit-learn carries."""

import sys
from pathlib import Path

import pandas

from medfed.data.partition import breast_cancer_hospitals

target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "local_data")
hospitals = breast_cancer_hospitals(seed=7)
parties = {"9999": ["Metropolitan", "Rural"], "10000": ["Regional", "Cancer Centre"]}
for party, names in parties.items():
    (target / party).mkdir(parents=True, exist_ok=True)
    rows = pandas.concat([hospitals[name] for name in names], ignore_index=True)
    rows.to_csv(target / party / "patients.csv", index=False)
