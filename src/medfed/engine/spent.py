"""What a run's differentially private training has cost at each simulated site, from the steps in its ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medfed.core.spending import Charge
from medfed.govern.chain import ledger_path
from medfed.govern.spends import charges_on_disk
from medfed.privacy.accountant import prv_epsilon
from medfed.spec.task import TaskSpec


@dataclass(frozen=True)
class SiteSpent:
    """One site's cost: epsilon at delta by PRV, of the steps that were taken with this noise and sampling rate."""

    epsilon: float
    delta: float
    steps: int
    noise_multiplier: float
    sampling_rate: float


def spent_by_site(ledgers: Path, task: TaskSpec, sites: Iterable[str]) -> dict[str, SiteSpent]:
    """Every site that was charged, in a run folder that has the sites' ledgers; empty without privacy.record."""
    privacy = task.privacy.record
    if privacy is None:
        return {}
    charges = {site: charges_on_disk(ledger_path(ledgers, site)) for site in sites}
    return {site: _spent(found, privacy.delta) for site, found in charges.items() if found}


def _spent(charges: list[Charge], delta: float) -> SiteSpent:
    spends = [charge.spend for charge in charges]
    last, steps = spends[-1], sum(spend.steps for spend in spends)
    return SiteSpent(prv_epsilon(spends, delta), delta, steps, last.noise_multiplier, last.sampling_rate)
