"""A site's privacy budget: whose rows are spent on, and in which ledger that is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medfed.core.spending import BudgetStore, Charge
from medfed.govern.ledger import Ledger
from medfed.govern.spends import charge_in


@dataclass(frozen=True)
class SiteBudget:
    """The budget of the rows that a run reads at a site: dataset and source as in :class:`Charge`."""

    store: BudgetStore
    dataset: str
    source: str = ""


@dataclass(frozen=True)
class RunBudget:
    """A budget in a run's own ledger, as a simulated site keeps it (implements :class:`BudgetStore`)."""

    ledger: Ledger
    run: str

    def charge(self, charge: Charge, allow: Callable[[Sequence[Charge]], bool]) -> None:
        """Record a charge in the run's ledger, if it is allowed."""
        charge_in(self.ledger, self.run, charge, allow)
