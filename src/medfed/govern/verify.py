"""Verifying ledgers: a run's, all parties' together, or all that several places hold, against one another.

What it proves, provided that the public keys come from outside the run folder:

- every entry that a signed head covers is as its party wrote it, in that order, none dropped, inserted or
  repeated; all parties' entries belong to one run;
- every head that another party witnessed is still there, so a party cannot rewrite or cut its own ledger
  alone, even with its own key, once another has seen its head;
- no party showed two histories to those whose ledgers are compared;
- of a run that is said to be finished, each ledger ends with a signed ``closed`` entry.

What it does not prove:

- that a party wrote down everything, or the truth, or the right time;
- anything about entries after the last signed head of an unfinished run;
- anything of a party whose ledger is in none of the places, but that those who witnessed its heads agree;
- that nothing was cut off after the last witnessed head, by someone who cuts the heads with it, while the run
  is unfinished or back to an earlier ``closed`` entry of a run that was resumed;
- anything against parties that together rewrite their ledgers and each other's witness entries, each with its
  own key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import LedgerError
from medfed.govern.chain import Chain, follow_ledger
from medfed.govern.crosscheck import Absent, Copy, check_witnessed, longest_of, missing
from medfed.govern.entries import ClosedEntry
from medfed.govern.keys import VerifyKey
from medfed.govern.places import Holding, Trust


@dataclass(frozen=True)
class Verified:
    """A party's ledger that verifies: its run, its number of entries and of heads, and its root in hex.

    signed: how many entries the last head covers; those after it, in an unfinished run, nothing vouches for. places:
    where copies of it lie; the numbers are the longest one's.
    """

    party: str
    run: str
    entries: int
    signed: int
    heads: int
    root: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What verification found: the ledgers that verify, the parties that were not here, and what is wrong."""

    verified: tuple[Verified, ...]
    absent: tuple[Absent, ...]
    wrong: tuple[LedgerError, ...]


def verify_ledgers(folder: Path, keys: Mapping[str, VerifyKey] | VerifyKey, *, finished: bool) -> list[Verified]:
    """Verify every ledger in a folder that holds all parties of a run, each party by its key, or all by one.

    finished: the run says that it ended, so each ledger has to end with a signed ``closed`` entry. Raises
    LedgerError at the first thing that does not verify, naming the party, and the entry or heads around it.
    """
    trust = Trust({}, keys) if isinstance(keys, VerifyKey) else Trust(keys)
    verified, _ = _cross_check(_follow(Holding(str(folder), folder.name, folder, finished), trust), complete=True)
    return verified


def verify_holdings(holdings: Sequence[Holding], trust: Trust, *, complete: bool) -> Findings:
    """Verify all ledgers of several folders, and those of the same run against one another.

    complete: a party whose head was witnessed has to be in one of them. A run was simulated, and has to be complete
    anyhow, if one folder holds several parties' ledgers. One folder's or run's error does not hide another's.
    """
    wrong: list[LedgerError] = []
    runs: dict[str, list[Copy]] = defaultdict(list)
    for holding in {holding.folder.resolve(): holding for holding in holdings}.values():
        try:
            for copy in _follow(holding, trust):
                runs[copy.chain.run or ""].append(copy)
        except LedgerError as error:
            wrong.append(error)
    verified: list[Verified] = []
    absent: list[Absent] = []
    for _, copies in sorted(runs.items()):
        simulated = len({copy.chain.party for copy in copies}) > len({copy.holding.folder for copy in copies})
        try:
            here, elsewhere = _cross_check(copies, complete=(complete or simulated) and not wrong)
        except LedgerError as error:
            wrong.append(error)
        else:
            verified += here
            absent += elsewhere
    return Findings(tuple(verified), tuple(absent), tuple(wrong))


def _follow(holding: Holding, trust: Trust) -> list[Copy]:
    """The ledgers of one folder, each faultless by itself, and of one run. Raises LedgerError."""
    chains = [follow_ledger(holding.folder, party, trust.key_of(party)) for party in holding.parties()]
    for chain in chains:
        _check_end(chain, finished=holding.finished)
    _check_one_run(chains)
    return [Copy(holding, chain) for chain in chains]


def _cross_check(copies: Sequence[Copy], *, complete: bool) -> tuple[list[Verified], list[Absent]]:
    """One run's ledgers against one another. Raises LedgerError."""
    longest = longest_of(copies)
    absent = check_witnessed(copies, longest)
    if complete and absent:
        raise missing(absent[0], longest)
    places: dict[str, list[str]] = defaultdict(list)
    for copy in copies:
        places[copy.chain.party].append(copy.holding.place)
    return [_summary(copy.chain, places[party]) for party, copy in sorted(longest.items())], absent


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


def _summary(chain: Chain, places: Sequence[str]) -> Verified:
    return Verified(
        chain.party,
        chain.run or "",
        chain.tree.size,
        chain.vouched,
        len(chain.heads),
        chain.tree.root().hex(),
        tuple(places),
    )
