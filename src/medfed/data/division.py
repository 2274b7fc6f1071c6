"""One data set divided over simulated sites, by patient, as studies of heterogeneity do."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.rng import generator
from medfed.data.columns import require_columns
from medfed.data.kinds import Texts, level
from medfed.data.raw import RawTable
from medfed.data.splits import largest_remainder, positions
from medfed.spec.task import DataSpec, Partition

_ATTEMPTS = 1000


def divided(raw: RawTable, data: DataSpec, partition: Partition, seed: int) -> dict[str, RawTable]:
    """Site → its rows, in their order; together they are all rows, each once.

    The patients of a class (that of most of a patient's rows; all of them are one class unless ``by: label``) are put
    into an order by a keyed hash of their ids, and cut at shares drawn from a symmetric Dirichlet distribution (equal
    ones under ``even``). Without ``data.id`` each row is a patient. Raises DataError where no draw leaves every site
    the least number of patients.
    """
    by_label = partition.by == "label" and data.label is not None
    require_columns(tuple(filter(None, (data.id, data.label.column if by_label and data.label else None))), raw, "")
    ids = raw.columns[data.id] if data.id is not None else np.arange(raw.rows).astype(str).astype(object)
    labels = raw.columns[data.label.column] if by_label and data.label else np.full(raw.rows, None, dtype=object)
    groups = _groups(ids, labels, seed)
    patients = sum(map(len, groups))
    shares = np.full(partition.sites, 1 / partition.sites)
    for attempt in range(_ATTEMPTS):
        draw = generator(seed, "partition", attempt)
        home: dict[str | None, int] = {}
        for group in groups:
            if partition.by != "even":
                shares = draw.dirichlet(np.full(partition.sites, partition.alpha))
            home |= dict(
                zip(
                    group,
                    np.repeat(np.arange(partition.sites), largest_remainder(len(group), shares)).tolist(),
                    strict=True,
                )
            )
        if np.bincount(list(home.values()), minlength=partition.sites).min() >= partition.minimum:
            return _parts(raw, np.array([home[patient] for patient in ids.tolist()]), partition.sites)
        if partition.by == "even":
            break
    raise DataError(
        f"{patients} patients cannot be divided over {partition.sites} sites with {partition.minimum} at each",
        where=raw.source,
        remedy="lower partition.sites or partition.minimum, or raise partition.alpha",
    )


def site_names(count: int) -> list[str]:
    """site-1, site-2, …, so written that their order is that of their numbers."""
    width = len(str(count))
    return [f"site-{number:0{width}d}" for number in range(1, count + 1)]


def _parts(raw: RawTable, home: NDArray[np.int64], sites: int) -> dict[str, RawTable]:
    return {name: raw.where(np.flatnonzero(home == index)) for index, name in enumerate(site_names(sites))}


def _groups(ids: Texts, labels: Texts, seed: int) -> list[list[str | None]]:
    """The patients of each class, in the order of their hashes."""
    counts: defaultdict[str | None, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for patient, label in zip(ids.tolist(), labels.tolist(), strict=True):
        counts[patient]["" if label is None else level(label)] += 1
    place = positions(seed, {patient or "" for patient in counts}, "partition")
    members: defaultdict[str, list[str | None]] = defaultdict(list)
    for patient in sorted(counts, key=lambda each: (place[each or ""], each or "")):
        members[max(counts[patient], key=lambda name: (counts[patient][name], name))].append(patient)
    return [members[name] for name in sorted(members)]
