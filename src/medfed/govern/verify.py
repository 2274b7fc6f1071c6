"""Verifying a run's ledgers, all parties' together.

What it proves, provided that the public keys come from outside the run folder:

- every entry that a signed head covers is as its party wrote it, in that order, none dropped, inserted or
  repeated; all parties' entries belong to one run;
- every head that another party witnessed is still there, so a party cannot rewrite or cut its own ledger
  alone, even with its own key, once another has seen its head;
- of a run that is said to be finished, each ledger ends with a signed ``closed`` entry.

What it does not prove:

- that a party wrote down everything, or the truth, or the right time;
- anything about entries after the last signed head of an unfinished run;
- that nothing was cut off after the last witnessed head, by someone who cuts the heads with it, while the run
  is unfinished or back to an earlier ``closed`` entry of a run that was resumed;
- anything against parties that together rewrite their ledgers and each other's witness entries, each with its
  own key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import LedgerError
from medfed.govern.chain import HEADS_SUFFIX, Chain, Witnessed, follow_ledger
from medfed.govern.entries import ClosedEntry
from medfed.govern.keys import VerifyKey


@dataclass(frozen=True)
class Verified:
    """A party's ledger that verifies: its run, its number of entries and of heads, and its root in hex.

    signed: how many entries the last head covers; those after it, in an unfinished run, nothing vouches for.
    """

    party: str
    run: str
    entries: int
    signed: int
    heads: int
    root: str


def verify_ledgers(folder: Path, keys: Mapping[str, VerifyKey] | VerifyKey, *, finished: bool) -> list[Verified]:
    """Verify every ledger in a folder, each party by its key, or all by one.

    finished: the run says that it ended, so each ledger has to end with a signed ``closed`` entry. Raises
    LedgerError at the first thing that does not verify, naming the party, and the entry or heads around it.
    """
    parties = _parties(folder)
    chains = {party: follow_ledger(folder, party, _key_of(party, keys)) for party in parties}
    for chain in chains.values():
        _check_end(chain, finished=finished)
    _check_one_run(list(chains.values()))
    _check_witnessed(chains)
    return [_summary(chain) for chain in chains.values()]


def _parties(folder: Path) -> list[str]:
    """Every party that left entries or heads, sorted."""
    names = [path.name for path in folder.glob("*.jsonl")]
    parties = {name.removesuffix(HEADS_SUFFIX).removesuffix(".jsonl") for name in names}
    if not parties:
        raise LedgerError("there is no ledger in this folder", where=str(folder))
    return sorted(parties)


def _key_of(party: str, keys: Mapping[str, VerifyKey] | VerifyKey) -> VerifyKey:
    if isinstance(keys, VerifyKey):
        return keys
    try:
        return keys[party]
    except KeyError:
        raise LedgerError(
            "no public key of this party is known",
            where=party,
            remedy="obtain it from the party itself, not from the run folder, and name it by --key",
        ) from None


def _check_end(chain: Chain, *, finished: bool) -> None:
    size = chain.tree.size
    if size == 0:
        raise LedgerError("its ledger is empty", where=chain.party)
    if not chain.heads:
        raise LedgerError("its ledger has no signed head: nothing vouches for its entries", where=chain.party)
    if finished and not (isinstance(chain.last, ClosedEntry) and chain.vouched == size):
        raise LedgerError(
            "truncated or added to: the run is finished, but no closed entry under a signed head ends it "
            f"(the last signed head is at size {chain.vouched})",
            where=f"{chain.party}: entry {size - 1} (line {size})",
        )


def _check_one_run(chains: Sequence[Chain]) -> None:
    runs = sorted({chain.run or "" for chain in chains})
    if len(runs) > 1:
        named = ", ".join(f"{chain.party}: {chain.run!r}" for chain in chains)
        raise LedgerError(f"the ledgers belong to different runs ({named})")


def _check_witnessed(chains: Mapping[str, Chain]) -> None:
    signed = {(chain.party, head.size, head.root) for chain in chains.values() for head in chain.heads}
    for witness, chain in chains.items():
        for witnessed in chain.witnessed:
            seen = witnessed.entry
            if (seen.party, seen.size, seen.root) not in signed:
                raise _contradicted(witness, witnessed, chains.get(seen.party))


def _contradicted(witness: str, witnessed: Witnessed, chain: Chain | None) -> LedgerError:
    """What is wrong with the ledger of a party whose head, seen by another, is no longer there."""
    seen = witnessed.entry
    index = witnessed.index
    by = f"{witness} witnessed its head at size {seen.size} (entry {index}, line {index + 1})"
    if chain is None:
        return LedgerError(f"its ledger is missing, though {by}", where=seen.party)
    size = chain.tree.size
    if size < seen.size:
        return LedgerError(
            f"truncated: it has {size} entries, though {by}",
            where=f"{seen.party}: entry {size} (line {size + 1})",
        )
    if any(head.size == seen.size for head in chain.heads):
        return LedgerError(f"rewritten: its head there is another, though {by}", where=seen.party)
    return LedgerError(f"rewritten: it lacks a signed head, though {by}", where=seen.party)


def _summary(chain: Chain) -> Verified:
    return Verified(
        chain.party,
        chain.run or "",
        chain.tree.size,
        chain.vouched,
        len(chain.heads),
        chain.tree.root().hex(),
    )
