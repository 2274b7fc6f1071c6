"""The demo's data: the Wisconsin breast-cancer patients, divided over four hospitals unlike each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.rng import generator

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class CaseMix:
    """How many patients of each diagnosis a hospital sees."""

    malignant: int
    benign: int


HOSPITALS = {
    "Metropolitan": CaseMix(malignant=60, benign=180),
    "Regional": CaseMix(malignant=62, benign=103),
    "Cancer Centre": CaseMix(malignant=72, benign=24),
    "Rural": CaseMix(malignant=18, benign=50),
}
"""The four hospitals; together they see all 212 malignant and 357 benign patients once."""


def breast_cancer_hospitals(seed: int = 0) -> dict[str, pandas.DataFrame]:
    """Each hospital's patients: ``id``, thirty measurements, and ``diagnosis`` (malignant or benign).

    Source: W. Street, W. Wolberg, O. Mangasarian 1993, as distributed with scikit-learn.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame.insert(0, "id", [f"BC{row:03d}" for row in range(len(frame))])
    diagnosis = np.asarray(bunch.target_names)[bunch.target]
    frame["diagnosis"] = diagnosis
    rng = generator(seed, "hospitals")
    malignant = rng.permutation(np.flatnonzero(diagnosis == "malignant"))
    benign = rng.permutation(np.flatnonzero(diagnosis == "benign"))
    hospitals = {}
    for name, mix in HOSPITALS.items():
        rows = np.concatenate([malignant[: mix.malignant], benign[: mix.benign]])
        malignant, benign = malignant[mix.malignant :], benign[mix.benign :]
        hospitals[name] = frame.iloc[np.sort(rows)].reset_index(drop=True)
    return hospitals
