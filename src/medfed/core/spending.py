"""What a site's privacy budget is spent on, and where that is kept."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Mechanism(enum.StrEnum):
    """What adds the noise, and whom a spend is about."""

    SAMPLED_GAUSSIAN = "Gaussian with Poisson sampling"
    """Steps of DP-SGD (Abadi et al. 2016): one row."""
    GAUSSIAN = "discrete Gaussian"
    """A released sum (Canonne, Kamath and Steinke 2020): one patient's rows."""
    LAPLACE = "discrete Laplace"
    """A released sum (Ghosh, Roughgarden and Sundararajan 2009): one patient's rows."""
    RESPONSE = "randomized response"
    """Labels (Warner 1965): one row's label."""
    WHOLE_SITE = "Gaussian on the clipped update of a whole site"
    """Site-level differential privacy (McMahan et al. 2018): all rows of a site."""

    @property
    def pure(self) -> bool:
        """Whether it is (ε, 0)-differentially private."""
        return self in (Mechanism.LAPLACE, Mechanism.RESPONSE)


@dataclass(frozen=True)
class Spend:
    """Uses of a mechanism.

    noise_multiplier: σ, the noise's standard deviation over the sensitivity (DP-SGD: the clipping norm); 1/ε of a
    mechanism that is (ε, 0)-differentially private. sampling_rate: q, the probability with which a row is in a batch;
    1 elsewhere. steps: T, how many batches were, or are to be, drawn; how often it was used.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    mechanism: Mechanism = Mechanism.SAMPLED_GAUSSIAN

    @property
    def of_rows(self) -> bool:
        """Whether it counts in a dataset's budget, which is that of its rows, and not in that of a whole site."""
        return self.mechanism is not Mechanism.WHOLE_SITE


@dataclass(frozen=True)
class Charge:
    """A spend, of what and for whom.

    dataset: its name at the site. source: where its rows come from, as a keyed digest, so that a second name for the
    same file is no second budget; empty where nobody else can have it. task: the task's digest; title: its name. run,
    round, call, step, request: what was asked, and SHA-256 of its encoding. mark, version: entries of the run's
    ledger, and the newest version of the site's memory, before.
    """

    dataset: str
    source: str
    task: str
    title: str
    run: str
    round: int
    call: int
    step: str
    request: str
    mark: int
    version: int
    spend: Spend

    def concerns(self, other: Charge) -> bool:
        """Whether both are spent on the same rows."""
        return self.dataset == other.dataset or (self.source != "" and self.source == other.source)


class BudgetStore(Protocol):
    """Everything that a site ever spent: charges are added to it, and none is taken back."""

    def charge(self, charge: Charge, allow: Callable[[Sequence[Charge]], bool]) -> None:
        """Show all charges so far to ``allow``, and record this one if it says so; it raises Refused for one too many.

        Nobody else charges in between. When it returns, the charge outlives the process (in deployment, a power cut).
        Raises Refused where it cannot be recorded: then nothing may be computed.
        """
        ...
