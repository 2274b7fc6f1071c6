"""Write three clinics' pictures, each with a table of patients and findings."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")
rng = np.random.default_rng(0)
for clinic, (side, light, patients) in {"Lake": (32, 20, 60), "Hill": (40, 50, 40), "Town": (28, 0, 50)}.items():
    (target / clinic).mkdir(parents=True, exist_ok=True)
    lines = ["file,patient,finding"]
    for number in range(2 * patients):
        spot = int(rng.random() < 0.4)
        picture = rng.normal(80 + light, 25, (side, side))
        row, column = rng.integers(0, side - 8, 2)
        picture[row : row + 8, column : column + 8] += 90 * spot
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(target / clinic / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{clinic}-{number // 2:02d},{'spot' if spot else 'none'}")
    (target / clinic / "labels.csv").write_text("\n".join(lines) + "\n")
