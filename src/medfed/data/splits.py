"""Which patients train, validate and test: decided by a keyed hash of the patient's id, never by row
order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Split
from medfed.spec.task import Splits

SplitCodes: TypeAlias = NDArray[np.int8]
"""The index of each row's split in :data:`SPLITS`."""

SPLITS = tuple(Split)

DRAWN = (Split.TRAIN, Split.VALIDATION, Split.TEST)
"""The parts of a site that takes part in training."""


def assign_splits(ids: Sequence[str], classes: Sequence[str] | None, splits: Splits, seed: int) -> SplitCodes:
    """The split of each row, by its patient's id.

    Not stratified: the hash of (seed, id), as a number in [0, 1), is held against the cumulative fractions,
    so that no patient's split depends on another's. Stratified: patients are ranked by that number within
    their class, and cut at exact proportions. A patient's class is that of most of its rows, ties to the
    later in order.
    """
    position = positions(seed, set(ids))
    fractions = np.array([splits.train, splits.validation, splits.test], dtype=np.float64)
    fractions /= fractions.sum()
    if classes is None or not splits.stratify:
        edges = np.cumsum(fractions)[:-1]
        parts = np.searchsorted(edges, np.array(list(position.values())), side="right")
        chosen = dict(zip(position, parts.tolist(), strict=True))
    else:
        chosen = _stratified(position, class_of_patients(ids, classes), fractions)
    return np.array([chosen[patient] for patient in ids], dtype=np.int8)


def positions(seed: int, patients: Iterable[str], purpose: str = "") -> dict[str, float]:
    """Each patient's hash, keyed by seed and purpose, as a number in [0, 1)."""
    key = hashlib.blake2b(f"{seed}{purpose}".encode(), digest_size=32).digest()
    keyed = hashlib.blake2b(key=key, digest_size=8)
    return {patient: _position(keyed.copy(), patient) for patient in patients}


def _position(keyed: hashlib.blake2b, patient: str) -> float:
    keyed.update(patient.encode(errors="surrogatepass"))
    return (int.from_bytes(keyed.digest(), "little") >> 11) * 2.0**-53


def class_of_patients(ids: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Each patient's class: that of most of its rows, ties to the later in order."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for patient, name in zip(ids, classes, strict=True):
        counts[patient][name] += 1
    return {patient: max(found, key=lambda name: (found[name], name)) for patient, found in counts.items()}


def _stratified(position: dict[str, float], class_of: dict[str, str], fractions: NDArray[np.float64]) -> dict[str, int]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for patient in sorted(position, key=lambda p: (position[p], p)):
        members[class_of[patient]].append(patient)
    chosen: dict[str, int] = {}
    for patients in members.values():
        parts = np.repeat(np.arange(len(fractions)), largest_remainder(len(patients), fractions))
        chosen |= dict(zip(patients, parts.tolist(), strict=True))
    return chosen


def largest_remainder(count: int, fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    """``count`` divided into whole parts of these proportions that add up to it; ties go to the earlier."""
    exact = np.round(count * fractions, 9)
    parts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - parts), kind="stable")
    parts[order[: count - int(parts.sum())]] += 1
    return parts
