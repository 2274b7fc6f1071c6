"""What each dataset of a deployed site has spent of its privacy budget, and which task spent it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.spending import Charge
from medfed.engine.deployed.budget import source_of
from medfed.engine.deployed.folders import SiteFolder
from medfed.govern.chain import ledger_path
from medfed.govern.entries import OFFICE
from medfed.govern.spends import charges_on_disk
from medfed.privacy.accountant import pld_epsilon
from medfed.spec.site import load_site


@dataclass(frozen=True)
class TaskSpent:
    """One task's part: its runs, requests and noisy steps or releases, and the epsilon of these alone.

    Epsilons of several tasks do not add up to that of all: composed they cost less. site_epsilon: what its noisy
    updates cost the site as a whole (0: there are none), which is another unit and no part of a dataset's budget.
    """

    task: str
    title: str
    runs: int
    requests: int
    steps: int
    epsilon: float
    site_epsilon: float = 0.0


@dataclass(frozen=True)
class DatasetSpent:
    """A dataset's budget at ``delta``: its limit (None: none), what is spent by all tasks, and what is left."""

    dataset: str
    limit: float | None
    delta: float
    spent: float
    left: float | None
    tasks: tuple[TaskSpent, ...]


def budgets(site_folder: Path) -> list[DatasetSpent]:
    """Every dataset that site.yaml declares or that was ever charged, by name.

    Raises UserError, TaskError, LedgerError.
    """
    folder = SiteFolder.open(site_folder)
    settings = load_site(folder.settings)
    charges = charges_on_disk(ledger_path(folder.ledger(OFFICE), folder.site))
    names = sorted({*settings.datasets, *(charge.dataset for charge in charges)})
    sources = {name: source_of(folder, name, dataset) for name, dataset in settings.datasets.items()}
    epsilon, delta = settings.policy.epsilon, settings.policy.delta
    found = []
    for name in names:
        source = sources.get(name, "")
        same_rows = [c for c in charges if c.dataset == name or (source and c.source == source)]
        spent = pld_epsilon([charge.spend for charge in same_rows if charge.spend.of_rows], delta)
        left = None if epsilon is None else max(epsilon - spent, 0.0)
        found.append(DatasetSpent(name, epsilon, delta, spent, left, tuple(_by_task(same_rows, delta))))
    return found


def _by_task(charges: Sequence[Charge], delta: float) -> list[TaskSpent]:
    found = []
    for task in dict.fromkeys(charge.task for charge in charges):
        own = [charge for charge in charges if charge.task == task]
        spends = [charge.spend for charge in own if charge.spend.of_rows]
        updates = [charge.spend for charge in own if not charge.spend.of_rows]
        found.append(
            TaskSpent(
                task=task,
                title=own[-1].title,
                runs=len({charge.run for charge in own}),
                requests=len(own),
                steps=sum(spend.steps for spend in spends),
                epsilon=pld_epsilon(spends, delta),
                site_epsilon=pld_epsilon(updates, delta),
            )
        )
    return found
