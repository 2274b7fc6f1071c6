"""Write four hospitals' tables from the breast-cancer data that scikit-learn carries: one CSV a hospital."""

import sys
from pathlib import Path

from medfed.data.partition import breast_cancer_hospitals

target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")
target.mkdir(parents=True, exist_ok=True)
for hospital, frame in breast_cancer_hospitals(seed=7).items():
    frame.to_csv(target / f"{hospital.lower().replace(' ', '_')}.csv", index=False)
