"""What record-level differential privacy means for one site: its sampling rate, its steps and its noise."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.errors import DataError, TaskError
from medfed.core.spending import Spend
from medfed.privacy.accountant import noise_for
from medfed.spec.task import RecordPrivacy

MOST_STEPS = 10_000_000


@dataclass(frozen=True)
class Plan:
    """A site's part in a task.

    noise_multiplier: σ. sampling_rate: q. expected_batch: qn. round_steps: steps of one round. steps: of all rounds.
    """

    noise_multiplier: float
    sampling_rate: float
    expected_batch: int
    round_steps: int
    steps: int

    @property
    def round(self) -> Spend:
        """What one round spends."""
        return Spend(self.noise_multiplier, self.sampling_rate, self.round_steps)


def plan_for(privacy: RecordPrivacy, *, rows: int, batch: int, round_steps: int, rounds: int, site: str = "") -> Plan:
    """The plan of a site with so many training rows, which trains in every round.

    batch: rows of a batch on average. Noise is the task's own, or that with which all steps of all rounds cost the
    task's epsilon at most. Raises TaskError where it says neither or takes too many steps; DataError where delta is not
    below 1/rows: then a mechanism may publish a row.
    """
    if privacy.delta * rows >= 1:
        raise DataError(
            f"privacy.record.delta ({privacy.delta:g}) is not below one over the number of training rows here",
            where=site,
            remedy="write a smaller privacy.record.delta: well below one over the rows of the largest site",
        )
    rate, steps = batch / rows, round_steps * rounds
    if steps > MOST_STEPS:
        raise TaskError(
            f"{steps:,} noisy steps are more than can be accounted for",
            remedy=f"train in fewer rounds or local updates: {MOST_STEPS:,} steps at most, or larger batches",
        )
    noise = privacy.noise_multiplier
    if privacy.epsilon is not None:
        noise = noise_for(privacy.epsilon, privacy.delta, rate, steps)
    if noise is None:
        raise TaskError("privacy.record says neither epsilon nor noise_multiplier", remedy="write `epsilon: 3`, say")
    return Plan(noise, rate, batch, round_steps, steps)
