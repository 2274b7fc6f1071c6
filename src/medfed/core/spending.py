"""What a site's privacy budget is spent on, and where that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Spend:
    """Steps of the Poisson-subsampled Gaussian mechanism (Abadi et al. 2016).

    noise_multiplier: σ, the noise's standard deviation over the clipping norm. sampling_rate: q, the probability with
    which a row is in a batch. steps: T, how many batches were, or are to be, drawn.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int


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
