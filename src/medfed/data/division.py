"""One data set divided over simulated sites, by patient, as studies of heterogeneity do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from medfed.core.errors import DataError
from medfed.core.rng import generator
from medfed.data.columns import require_columns
from medfed.data.kinds import level
from medfed.data.patients import id_column
from medfed.data.raw import RawTable
from medfed.data.splits import class_of_patients, largest_remainder, positions
from medfed.spec.task import DataSpec, Partition

_ATTEMPTS = 1000


def divided(raw: RawTable, data: DataSpec, partition: Partition, seed: int) -> dict[str, RawTable]:
    """Site → its rows, in their order; together they are all rows, each once.

    The patients of a class (that of most of a patient's rows; all of them are one class unless ``by: label``) are put
    into an order by a keyed hash of their ids, and cut at shares drawn from a symmetric Dirichlet distribution
    (``quantity``, ``label``) or equal ones. Without an id each row is a patient. Raises DataError where no draw
    leaves every site the least number of patients.
    """
    patients, labels = _patients(raw, data), _labels(raw, data, partition)
    groups = _groups(patients, labels, seed)
    for attempt in range(_ATTEMPTS if partition.draws_shares else 1):
        draw = generator(seed, "partition", attempt)
        home = {patient: site for group in groups for patient, site in _cut(group, partition, draw)}
        if np.bincount(list(home.values()), minlength=partition.sites).min() >= partition.minimum:
            homes = np.array([home[patient] for patient in patients])
            names = enumerate(site_names(partition.sites))
            return {name: raw.where(np.flatnonzero(homes == index)) for index, name in names}
    raise DataError(
        f"{len(set(patients))} patients cannot be divided over {partition.sites} sites with {partition.minimum} each",
        where=raw.source,
        remedy="lower partition.sites or partition.minimum, or raise partition.alpha",
    )


def site_names(count: int) -> list[str]:
    """site-1, site-2, …, so written that their order is that of their numbers."""
    width = len(str(count))
    return [f"site-{number:0{width}d}" for number in range(1, count + 1)]


def _patients(raw: RawTable, data: DataSpec) -> list[str]:
    column = id_column(data, raw)
    if column is None:
        return [str(row) for row in range(raw.rows)]
    require_columns((column,), raw, "partition")
    return ["" if value is None else value.strip() for value in raw.columns[column].tolist()]


def _labels(raw: RawTable, data: DataSpec, partition: Partition) -> list[str]:
    if partition.by != "label" or data.label is None:
        return [""] * raw.rows
    require_columns((data.label.column,), raw, "partition")
    return ["" if value is None else level(value) for value in raw.columns[data.label.column].tolist()]


def _groups(patients: list[str], labels: list[str], seed: int) -> list[list[str]]:
    """The patients of each class, in the order of their hashes."""
    place = positions(seed, set(patients), "partition")
    members: defaultdict[str, list[str]] = defaultdict(list)
    class_of = class_of_patients(patients, labels)
    for patient in sorted(class_of, key=lambda each: (place[each], each)):
        members[class_of[patient]].append(patient)
    return [members[name] for name in sorted(members)]


def _cut(group: list[str], partition: Partition, draw: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Each patient of a class, and the index of its site."""
    shares = np.full(partition.sites, 1 / partition.sites)
    if partition.draws_shares:
        shares = draw.dirichlet(np.full(partition.sites, partition.alpha))
    parts = np.repeat(np.arange(partition.sites), largest_remainder(len(group), shares))
    return zip(group, parts.tolist(), strict=True)
