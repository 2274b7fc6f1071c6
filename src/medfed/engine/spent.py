"""What a run's differential privacy has cost at each simulated site, from the charges in its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.spending import Charge, Mechanism, Spend
from medfed.engine.wholesite import plan_of
from medfed.govern.chain import ledger_path
from medfed.govern.spends import charges_on_disk
from medfed.privacy.accountant import pld_epsilon, prv_epsilon
from medfed.spec.task import Privacy, TaskSpec


@dataclass(frozen=True)
class WholeSiteSpent:
    """What the run's model costs a site as a whole: epsilon at delta by PLD, of its updates with this noise."""

    epsilon: float
    delta: float
    updates: int
    noise_multiplier: float


@dataclass(frozen=True)
class SiteSpent:
    """One site's cost.

    epsilon, delta: for one row, None where its training has no noise; of all that follows but ``site``: by PRV where
    DP-SGD alone trained, else by PLD. steps, noise_multiplier, sampling_rate: of DP-SGD, 0 without it. sums: sums
    released with noise, and sums_epsilon what they cost alone; labels: the epsilon of one label, None where labels are
    as they were. site: what the run costs the site as a whole, another unit, which is in no sum with the rest.
    """

    epsilon: float | None
    delta: float
    steps: int
    noise_multiplier: float
    sampling_rate: float
    sums: int = 0
    sums_epsilon: float = 0.0
    labels: float | None = None
    site: WholeSiteSpent | None = None


def spent_by_site(ledgers: Path, task: TaskSpec, sites: Iterable[str]) -> dict[str, SiteSpent]:
    """Every site that was charged, in a run folder that has the sites' ledgers; empty without differential privacy.

    Where ledgers are the sites' own, what a whole site may cost at most is known all the same: no site releases more
    updates than the task plans.
    """
    privacy = task.privacy
    if all(each is None for each in (privacy.record, privacy.site, privacy.labels, privacy.release)):
        return {}
    charges = {site: charges_on_disk(ledger_path(ledgers, site)) for site in sites}
    found = {site: _spent(each, privacy) for site, each in charges.items() if each}
    plan = None if any(ledger_path(ledgers, site).is_file() for site in charges) else plan_of(task, len(charges))
    if plan is not None:
        most = _whole([plan.run], privacy)
        found = {site: SiteSpent(None, row_delta(privacy), 0, 0.0, 0.0, site=most) for site in charges}
    return found


def row_delta(privacy: Privacy) -> float:
    """The δ at which a task's cost for one row is told: that of its training or of its sums; 0 where ε needs none."""
    if privacy.record is not None:
        return privacy.record.delta
    return (privacy.release.delta or 0.0) if privacy.release is not None else 0.0


def _spent(charges: list[Charge], privacy: Privacy) -> SiteSpent:
    delta = row_delta(privacy)
    spends = [charge.spend for charge in charges]
    trained = _of(spends, Mechanism.SAMPLED_GAUSSIAN)
    sums = _of(spends, Mechanism.LAPLACE, Mechanism.GAUSSIAN)
    answers, updates = _of(spends, Mechanism.RESPONSE), _of(spends, Mechanism.WHOLE_SITE)
    covered = privacy.record is not None or privacy.release is not None
    last = trained[-1] if trained else Spend(0.0, 0.0, 0)
    return SiteSpent(
        epsilon=prv_epsilon([spend for spend in spends if spend.of_rows], delta) if covered else None,
        delta=delta,
        steps=_uses(trained),
        noise_multiplier=last.noise_multiplier,
        sampling_rate=last.sampling_rate,
        sums=_uses(sums),
        sums_epsilon=pld_epsilon(sums, delta),
        labels=sum(spend.steps / spend.noise_multiplier for spend in answers) if answers else None,
        site=_whole(updates, privacy),
    )


def _whole(updates: Sequence[Spend], privacy: Privacy) -> WholeSiteSpent | None:
    if not updates or privacy.site is None:
        return None
    delta = privacy.site.delta
    return WholeSiteSpent(pld_epsilon(updates, delta), delta, _uses(updates), updates[-1].noise_multiplier)


def _of(spends: Iterable[Spend], *mechanisms: Mechanism) -> list[Spend]:
    return [spend for spend in spends if spend.mechanism in mechanisms]


def _uses(spends: Iterable[Spend]) -> int:
    return sum(spend.steps for spend in spends)
