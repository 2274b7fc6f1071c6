"""Shadow models for membership inference: the task trained on a part of each site's patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medfed.attacks.membership import AT_ONCE, Shadow, Trials, judged_model, members_of
from medfed.core.errors import UserError
from medfed.core.examples import Split
from medfed.core.rng import generator
from medfed.data.splits import SPLITS
from medfed.data.table import SiteTable
from medfed.engine.audit.federations import SiteModel, trained
from medfed.engine.audit.kept import KeptModels
from medfed.engine.audit.subject import Subject
from medfed.engine.trained import TrainedModel
from medfed.govern.keys import SigningKey

_TRAIN, _TEST = SPLITS.index(Split.TRAIN), SPLITS.index(Split.TEST)


@dataclass(frozen=True)
class Shadows:
    """Shadow models of a run. The records are the training and test rows of each site; validation rows stay so."""

    subject: Subject
    kept: KeptModels
    key: SigningKey

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """The records of each site, as rows of its table."""
        validation = SPLITS.index(Split.VALIDATION)
        return {site: np.flatnonzero(table.split != validation) for site, table in self.subject.tables.items()}

    @cached_property
    def patients(self) -> NDArray[np.int64]:
        """By record, the number of its patient: the same name at two sites is two patients."""
        names = [f"{number}:{each}" for number, site in enumerate(self.rows) for each in self._ids(site)]
        _, numbers = np.unique(np.array(names), return_inverse=True)
        return numbers.astype(np.int64)

    def _ids(self, site: str) -> NDArray[np.str_]:
        """The patient of each of a site's records."""
        return self.subject.tables[site].ids[self.rows[site]].astype(str)

    @cached_property
    def in_run(self) -> NDArray[np.bool_]:
        """By record, whether the run was trained on it."""
        tables = self.subject.tables
        return np.concatenate([tables[site].split[rows] == _TRAIN for site, rows in self.rows.items()])

    @cached_property
    def quarters(self) -> int:
        """Of the records a shadow model is trained on: about the run's own share, or a half where it left none out."""
        share = float(self.in_run.mean())
        return 2 if share == 1 else min(max(round(4 * share), 1), 3)

    def train(self, models: int) -> Iterator[Shadow]:
        """So many models, those first that are kept."""
        for number in range(models):
            yield Shadow(*self.kept.get(f"shadow-{number:03}", lambda number=number: self._train(number)))  # type: ignore[misc]

    def _train(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        turn, place = divmod(number, AT_ONCE)
        members = {site: self._members(site, turn)[place] for site in self.rows}
        tables = {site: self._dealt(site, inside) for site, inside in members.items()}
        models = trained(self.subject, tables, self.key)
        return np.concatenate(list(members.values())), self._scores(models)

    def _members(self, site: str, turn: int) -> NDArray[np.bool_]:
        """(4, records of the site): drawn by patient, so that nobody is on both sides."""
        patients, place = np.unique(self._ids(site), return_inverse=True)
        random = generator(self.subject.spec.seed, "audit", "membership", site, turn)
        return members_of(len(patients), self.quarters, random)[:, place]

    def _dealt(self, site: str, inside: NDArray[np.bool_]) -> SiteTable:
        table = self.subject.tables[site]
        split = table.split.copy()
        split[self.rows[site]] = np.where(inside, _TRAIN, _TEST)
        return replace(table, split=split)

    def _scores(self, models: dict[str, SiteModel]) -> NDArray[np.float64]:
        tables = self.subject.tables
        return np.concatenate([models[site].margins(tables[site])[rows] for site, rows in self.rows.items()])

    def own(self, shadows: list[Shadow]) -> Trials | None:
        """The run's own model attacked; None where it left no record out, or was trained on other sites' rows."""
        models = own_models(self.subject)
        if models is None or self.in_run.all():
            return None
        trials = judged_model(self._scores(models), self.in_run, shadows)
        return trials if trials.members.any() and not trials.members.all() else None


def own_models(subject: Subject) -> dict[str, SiteModel] | None:
    """The run's own model for each site; None where the rows are not those of the run's sites."""
    models = {}
    try:
        for site in subject.tables:
            found = TrainedModel.load(subject.folder.path, site)
            models[site] = SiteModel(found.task, found.encoding, found.network.vector())
    except UserError:
        if subject.facts.simulation:
            raise
        return None
    return models
