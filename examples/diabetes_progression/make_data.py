"""Write three clinics' tables from the diabetes data that scikit-learn carries, divided by age."""

import sys
from pathlib import Path

from sklearn.datasets import load_diabetes

target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")
frame = load_diabetes(as_frame=True, scaled=False).frame
frame.insert(0, "patient", [f"D{row:03d}" for row in range(len(frame))])
frame["progression"] = frame.pop("target") / 100  # hundredths of the score, so that the outcome is of order one
clinics = {"Young": frame.age < 40, "Middle": frame.age.between(40, 55), "Older": frame.age > 55}
for clinic, chosen in clinics.items():
    (target / clinic).mkdir(parents=True, exist_ok=True)
    frame[chosen].to_csv(target / clinic / "patients.csv", index=False)
