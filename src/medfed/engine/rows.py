"""The rows of simulated sites in memory, loaded on demand and let go when there are too many."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError
from medfed.core.examples import Examples, Predictions, Split
from medfed.core.messages import Vector
from medfed.data.encoding import Encoding, encode
from medfed.data.table import SiteTable

CACHE_BYTES = 48 * 2**20
"""Rows that stay in memory beyond those of one cohort."""

_ENCODED_TOO = 2
"""How much more memory a table takes when its rows are encoded as well."""


@dataclass(eq=False)
class SiteRows:
    """One site's rows: as typed, as the present encoding gives them, and the last predictions of each split."""

    table: SiteTable
    _encoding: Encoding | None = None
    _examples: dict[Split, Examples] = field(default_factory=dict)
    _predictions: dict[Split, tuple[bytes, Predictions]] = field(default_factory=dict)
    _taught: tuple[bytes, NDArray[np.float32]] | None = None

    def encoded(self, encoding: Encoding, split: Split) -> bool:
        """Whether :meth:`examples` has nothing to encode."""
        return self._encoding is encoding and split in self._examples

    def examples(self, encoding: Encoding, split: Split) -> Examples:
        """The encoded rows of a split, encoded once for as long as the encoding stays the same."""
        if self._encoding is not encoding:
            self._encoding = encoding
            self._examples.clear()
            self._predictions.clear()
            self._taught = None
        if split not in self._examples:
            self._examples[split] = encode(self.table, encoding, split)
        return self._examples[split]

    def predictions(self, weights: bytes, split: Split) -> Predictions | None:
        """What the weights of this digest said of a split, if that was asked last."""
        kept = self._predictions.get(split)
        return kept[1] if kept is not None and kept[0] == weights else None

    def keep_predictions(self, weights: bytes, split: Split, predictions: Predictions) -> None:
        """Keep predictions for the next question about the same weights."""
        self._predictions[split] = (weights, predictions)

    def taught(self, teacher: bytes) -> NDArray[np.float32] | None:
        """What the teacher of this digest said of the training rows, shape (n, k), if it was asked."""
        return self._taught[1] if self._taught is not None and self._taught[0] == teacher else None

    def keep_taught(self, teacher: bytes, answers: NDArray[np.float32]) -> None:
        """Keep what a teacher said of the training rows for as long as the encoding stays the same."""
        self._taught = teacher, answers


def weights_digest(weights: Vector, *sites: str) -> bytes:
    """SHA-256 of a flat vector, and of the names of the sites that are scored together."""
    hashed = hashlib.sha256(weights.data)
    hashed.update("\0".join(sites).encode())
    return hashed.digest()


class RowsCache:
    """Site → rows, loaded when asked for.

    keep: sites whose rows always stay, once loaded: a cohort's. Beyond them the rows asked for longest ago are let
    go when all together exceed ``budget`` bytes.
    """

    def __init__(self, sources: dict[str, Callable[[], SiteTable]], keep: int, budget: int = CACHE_BYTES) -> None:
        self._sources = dict(sources)
        self._keep = keep
        self._budget = budget
        self._rows: OrderedDict[str, SiteRows] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._total = 0

    def known(self, site: str) -> SiteRows | None:
        """A site's rows, if memory holds them."""
        rows = self._rows.get(site)
        if rows is not None:
            self._rows.move_to_end(site)
        return rows

    def get(self, site: str) -> SiteRows:
        """A site's rows. Raises DataError where they cannot be loaded, or none of them is for training."""
        rows = self.known(site)
        if rows is not None:
            return rows
        rows = self._rows[site] = SiteRows(_loaded(site, self._sources[site]))
        self._sizes[site] = _ENCODED_TOO * rows.table.nbytes
        self._total += self._sizes[site]
        while len(self._rows) > self._keep and self._total > self._budget:
            self._total -= self._sizes.pop(self._rows.popitem(last=False)[0])
        return rows

    def add(self, site: str, source: Callable[[], SiteTable]) -> None:
        """One site more."""
        self._sources.setdefault(site, source)

    def warm(self) -> dict[str, int]:
        """Load all sites, if they can stay together; the training rows of each that was loaded.

        Mistakes in the rows show here, before anything is sent. Where not all fit, what was loaded is let go again, and
        mistakes of the other sites show when they are asked for. Raises DataError.
        """
        found = {}
        for site in self._sources:
            found[site] = self.get(site).table.rows(Split.TRAIN)
            if len(self._rows) < len(found):
                self._rows.clear()
                self._sizes.clear()
                self._total = 0
                break
        return found

    def part(self, processes: int) -> RowsCache:
        """A cache of the same rows for one of so many processes, within its part of the budget."""
        part = RowsCache(self._sources, self._keep, self._budget // processes)
        part._rows, part._sizes, part._total = self._rows.copy(), self._sizes.copy(), self._total
        return part


def _loaded(site: str, source: Callable[[], SiteTable]) -> SiteTable:
    table = source()
    if table.rows(Split.TRAIN) == table.rows(Split.EXTERNAL) == 0:
        raise DataError(
            "there are no training rows", where=site, remedy="leave the site out, or raise data.split.train"
        )
    return table
