"""Charges to a dataset's privacy budget as entries of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medfed.core.errors import LedgerError
from medfed.core.spending import Charge, Mechanism, Spend
from medfed.govern.entries import EntryKind, SpendEntry, decode_entry
from medfed.govern.ledger import Ledger

_MARK = f'"kind":"{EntryKind.SPEND}"'.encode()


def entry_of(charge: Charge, run: str) -> SpendEntry:
    """A charge as an entry of the ledger of ``run``."""
    return SpendEntry(
        run=run,
        spender=charge.run,
        round=charge.round,
        call=charge.call,
        step=charge.step,
        request=charge.request,
        task=charge.task,
        title=charge.title,
        dataset=charge.dataset,
        source=charge.source,
        mark=charge.mark,
        version=charge.version,
        mechanism=charge.spend.mechanism.value,
        noise_multiplier=repr(charge.spend.noise_multiplier),
        sampling_rate=repr(charge.spend.sampling_rate),
        steps=charge.spend.steps,
    )


def charge_of(entry: SpendEntry) -> Charge:
    """The charge that an entry records. Raises LedgerError for a mechanism that this version cannot account for."""
    noise, rate = _number(entry.noise_multiplier), _number(entry.sampling_rate)
    known = entry.mechanism in set(Mechanism)
    if not (known and noise >= 0 and 0 <= rate <= 1 and entry.steps >= 0):
        raise LedgerError(
            "it holds a spend of the privacy budget that this version cannot account for",
            remedy="use the version of MedFed that wrote it, or a newer one",
        )
    return Charge(
        dataset=entry.dataset,
        source=entry.source,
        task=entry.task,
        title=entry.title,
        run=entry.spender,
        round=entry.round,
        call=entry.call,
        step=entry.step,
        request=entry.request,
        mark=entry.mark,
        version=entry.version,
        spend=Spend(noise, rate, entry.steps, Mechanism(entry.mechanism)),
    )


def charges_in(ledger: Ledger) -> list[Charge]:
    """Every charge that a ledger holds, in order."""
    return [charge_of(entry) for entry in ledger.entries(SpendEntry)]


def charges_on_disk(path: Path) -> list[Charge]:
    """Every charge in a ledger's file, in order, as it stands; none where there is no file. A torn line is left out.

    Whether the file is as it was written, ``medfed ledger verify`` tells.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        lines = [line[:-1] for line in file if line.endswith(b"\n") and _MARK in line]
    try:
        entries = [decode_entry(line).entry for line in lines]
    except ValueError as error:
        raise LedgerError(f"it has an entry that is none: {error}", where=str(path)) from error
    return [charge_of(entry) for entry in entries if isinstance(entry, SpendEntry)]


def charge_in(ledger: Ledger, run: str, charge: Charge, allow: Callable[[Sequence[Charge]], bool]) -> None:
    """As :meth:`medfed.core.spending.BudgetStore.charge`, in the open ledger of ``run``."""
    if allow(charges_in(ledger)):
        ledger.append(entry_of(charge, run))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
