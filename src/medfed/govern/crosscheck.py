"""One run's ledgers against one another, wherever copies of them lie: every history and every witnessed head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from medfed.core.errors import LedgerError
from medfed.govern.chain import Chain, Witnessed, ledger_path
from medfed.govern.places import Holding


@dataclass(frozen=True)
class Copy:
    """A party's ledger as one place holds it, followed and faultless by itself."""

    holding: Holding
    chain: Chain


@dataclass(frozen=True)
class Absent:
    """A party whose heads were witnessed, while its ledger is in none of the places; heads: how many."""

    party: str
    run: str
    heads: int


def longest_of(copies: Sequence[Copy]) -> dict[str, Copy]:
    """Each party's longest copy, which continues all others. Raises LedgerError where one party has two histories."""
    by_party: dict[str, list[Copy]] = defaultdict(list)
    for copy in copies:
        by_party[copy.chain.party].append(copy)
    for held in by_party.values():
        for one, two in combinations(held, 2):
            _check_one_history(one, two)
    return {
        party: max(held, key=lambda copy: (copy.chain.tree.size, len(copy.chain.heads)))
        for party, held in by_party.items()
    }


def check_witnessed(copies: Sequence[Copy], longest: Mapping[str, Copy]) -> list[Absent]:
    """Check all witnessed heads against each other and against the signed heads; the parties that are not here.

    Raises LedgerError, which says between which sizes two histories part.
    """
    seen = [(copy.chain.party, witnessed) for copy in longest.values() for witnessed in copy.chain.witnessed]
    _check_witnesses_agree(seen)
    signed = {(c.chain.party, head.size, head.root) for c in copies for head in c.chain.heads}
    absent: dict[str, int] = defaultdict(int)
    for witness, witnessed in seen:
        entry = witnessed.entry
        if (entry.party, entry.size, entry.root) in signed:
            continue
        if entry.party in longest:
            agreed = {known for known in _roots(seen, witness, entry.party) if (entry.party, *known) in signed}
            raise _contradicted(witness, witnessed, longest[entry.party], agreed)
        absent[entry.party] += 1
    run = next((copy.chain.run or "" for copy in copies), "")
    return [Absent(party, run, heads) for party, heads in sorted(absent.items())]


def missing(absent: Absent, longest: Mapping[str, Copy]) -> LedgerError:
    """That a party's ledger should have been here."""
    witness, witnessed = next(
        (party, witnessed)
        for party, copy in longest.items()
        for witnessed in copy.chain.witnessed
        if witnessed.entry.party == absent.party
    )
    return LedgerError(f"its ledger is missing, though {_by(witness, witnessed)}", where=absent.party)


def _check_one_history(one: Copy, two: Copy) -> None:
    """Check that one copy continues the other. Raises LedgerError at the first entry that differs."""
    party = one.chain.party
    with ledger_path(one.holding.folder, party).open("rb") as a, ledger_path(two.holding.folder, party).open("rb") as b:
        index = next((index for index, (left, right) in enumerate(zip(a, b, strict=False)) if left != right), None)
    if index is None:
        return
    unsigned = [copy.holding.place for copy in (one, two) if copy.chain.vouched <= index]
    signed = f"no signed head covers it in {' or in '.join(unsigned)}" if unsigned else "this party signed both"
    raise LedgerError(
        f"split view: {one.holding.place} and {two.holding.place} hold different histories that part here; {signed}",
        where=f"{party}: entry {index} (line {index + 1})",
    )


_Seen: TypeAlias = tuple[str, Witnessed]


def _check_witnesses_agree(seen: Sequence[_Seen]) -> None:
    """Check that nobody witnessed two roots of one party at one size. Raises LedgerError."""
    first: dict[tuple[str, int], _Seen] = {}
    for witness, witnessed in seen:
        entry = witnessed.entry
        other = first.setdefault((entry.party, entry.size), (witness, witnessed))
        if other[1].entry.root != entry.root:
            agreed = _roots(seen, other[0], entry.party) & _roots(seen, witness, entry.party)
            raise LedgerError(
                f"split view: {_by(*other)}, and {_by(witness, witnessed)}, with another root; "
                f"{_parted(agreed, entry.size)}",
                where=entry.party,
            )


def _contradicted(witness: str, witnessed: Witnessed, copy: Copy, agreed: set[tuple[int, str]]) -> LedgerError:
    """What is wrong with the ledger of a party whose head, seen by another, is not there."""
    seen, chain = witnessed.entry, copy.chain
    by = _by(witness, witnessed)
    if chain.tree.size < seen.size:
        return LedgerError(
            f"truncated: it has {chain.tree.size} entries, though {by}",
            where=f"{seen.party}: entry {chain.tree.size} (line {chain.tree.size + 1})",
            remedy="if this copy was made before that, get a newer one",
        )
    another = any(head.size == seen.size for head in chain.heads)
    wrong = "its head there is another" if another else "it lacks a signed head"
    return LedgerError(f"rewritten: {wrong}, though {by}; {_parted(agreed, seen.size)}", where=seen.party)


def _by(witness: str, witnessed: Witnessed) -> str:
    index = witnessed.index
    return f"{witness} witnessed its head at size {witnessed.entry.size} (entry {index}, line {index + 1})"


def _roots(seen: Sequence[_Seen], witness: str, party: str) -> set[tuple[int, str]]:
    """The heads of a party that one witness saw, as (size, root)."""
    return {(each.entry.size, each.entry.root) for by, each in seen if (by, each.entry.party) == (witness, party)}


def _parted(agreed: set[tuple[int, str]], size: int) -> str:
    before = max((known for known, _ in agreed if known < size), default=0)
    return f"its histories part between size {before} and size {size}"
