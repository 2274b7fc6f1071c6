"""The budget of a deployed site: in its office's ledger, which outlives every run and which no task can reset."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.spending import Charge
from medfed.engine.budget import SiteBudget
from medfed.engine.deployed.cohorts import cohort_key, dataset_name
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.office import office_ledger
from medfed.govern.entries import OFFICE
from medfed.govern.spends import charge_in
from medfed.spec.loading import TaskFile
from medfed.spec.site import Dataset, dataset_path


@dataclass(frozen=True)
class OfficeBudget:
    """A budget over all runs of a site (implements :class:`BudgetStore`). Runs of one site take turns with it."""

    folder: Path

    def charge(self, charge: Charge, allow: Callable[[Sequence[Charge]], bool]) -> None:
        """Record a charge in the office's ledger, durable, if it is allowed."""
        with office_ledger(self.folder) as ledger:
            charge_in(ledger, OFFICE, charge, allow)


def budget_of(folder: SiteFolder, task: TaskFile, dataset: Dataset) -> SiteBudget:
    """The budget of the rows that a task reads at a site."""
    name = dataset_name(folder, task)
    return SiteBudget(OfficeBudget(folder.path), name, source_of(folder, name, dataset))


def source_of(folder: SiteFolder, name: str, dataset: Dataset) -> str:
    """Where a dataset's rows come from, as HMAC-SHA-256 in hex of the resolved path under a key of the site's own."""
    path = dataset_path(folder.path, name, dataset).resolve()
    return hmac.new(cohort_key(folder), str(path).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
