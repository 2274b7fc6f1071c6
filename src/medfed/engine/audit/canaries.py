"""Trainings with planted records: some of each site's training rows, with a wrong target, in or out by a coin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.canary import Planted, wrong_target
from medfed.core.errors import DataError
from medfed.core.examples import Split
from medfed.core.rng import generator
from medfed.data.table import SiteTable
from medfed.engine.audit.federations import SiteModel, trained
from medfed.engine.audit.kept import KeptModels
from medfed.engine.audit.shadows import own_models
from medfed.engine.audit.subject import Subject
from medfed.govern.keys import SigningKey

_SHARE, _MOST = 0.25, 100
"""The share of a site's training rows that become canaries, and the most of them at one site."""


@dataclass(frozen=True)
class CanaryTrainings:
    """Trainings of a run's task with canaries. The other rows of each site stay as they are."""

    subject: Subject
    kept: KeptModels
    key: SigningKey

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """The canaries of each site, as rows of its table: the same in all trainings, for coins alone differ."""
        chosen = {}
        for site, table in self.subject.tables.items():
            training = np.flatnonzero(table.mask(Split.TRAIN))
            size = min(int(_SHARE * len(training)), _MOST)
            random = generator(self.subject.spec.seed, "audit", "canaries", site)
            chosen[site] = np.sort(random.choice(training, size, replace=False))
        return chosen

    @property
    def canaries(self) -> int:
        """How many there are in each training."""
        return sum(map(len, self.rows.values()))

    def train(self, trainings: int) -> Iterator[Planted]:
        """So many trainings, those first that are kept."""
        for number in range(trainings):
            yield Planted(*self.kept.get(f"canary-{number:03}", lambda number=number: self._train(number)))  # type: ignore[misc]

    def _train(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        random = generator(self.subject.spec.seed, "audit", "coins", number)
        coins = {site: random.random(len(rows)) < 0.5 for site, rows in self.rows.items()}
        planted = {site: self._planted(site) for site in self.rows}
        models = trained(
            self.subject, {site: self._table(site, planted[site], coins[site]) for site in coins}, self.key
        )
        scores = self._scores(models, planted) - self._before
        return np.concatenate(list(coins.values())), scores

    def _planted(self, site: str) -> SiteTable:
        """The site's rows, with the canaries' targets wrong."""
        table, rows = self.subject.tables[site], self.rows[site]
        targets = table.targets.copy()
        if targets.dtype == object:
            codes = {name: code for code, name in enumerate(self._classes)}
            true = np.array([codes[name] for name in targets[rows]], np.int64)
            targets[rows] = [self._classes[code] for code in wrong_target(true, len(codes))]
        elif len(rows):
            targets[rows] = wrong_target(targets[rows], 0)
        return replace(table, targets=targets)

    @cached_property
    def _classes(self) -> list[str]:
        found = sorted({name for table in self.subject.tables.values() for name in table.targets})
        if len(found) < 2:
            raise DataError("there is one class only, so that no target can be wrong", remedy="leave canary out")
        return found

    def _table(self, site: str, planted: SiteTable, coins: NDArray[np.bool_]) -> SiteTable:
        stays: NDArray[Any] = np.ones(len(planted.ids), bool)
        stays[self.rows[site][~coins]] = False
        return planted.where(stays)

    def _scores(self, models: dict[str, SiteModel], planted: dict[str, SiteTable]) -> NDArray[np.float64]:
        return np.concatenate([models[site].margins(planted[site])[rows] for site, rows in self.rows.items()])

    @cached_property
    def _before(self) -> NDArray[np.float64] | float:
        """The canaries' scores under the run's own model, which saw none of them with the wrong target."""
        models = own_models(self.subject)
        return self._scores(models, {site: self._planted(site) for site in self.rows}) if models else 0.0
