"""What one party knows of the others' heads: each new head has to extend the last one that it accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from medfed.core.errors import LedgerError
from medfed.govern.heads import Head, Seen
from medfed.govern.keys import VerifyKey
from medfed.govern.ledger import Ledger
from medfed.govern.merkle import EMPTY_ROOT, verify_consistency

_HASH = 32
_LONGEST_PROOF = 128


NOTHING = Seen(0, EMPTY_ROOT.hex())
"""What is known of a party before its first head: every ledger extends the empty one."""


class Views:
    """The last head of each other party that this party accepted."""

    def __init__(self, seen: Mapping[str, Seen] = MappingProxyType({})) -> None:
        self._seen = dict(seen)

    @classmethod
    def restored(cls, ledger: Ledger) -> Views:
        """The views as the witness entries of this party's own ledger tell them, after a restart."""
        return cls({entry.party: Seen(entry.size, entry.root) for entry in ledger.witnessed()})

    def last(self, party: str) -> Seen:
        """The last head of a party: the size from which it has to prove the next one."""
        return self._seen.get(party, NOTHING)

    def accept(self, party: str, head: Head, proof: tuple[str, ...], key: VerifyKey) -> None:
        """Keep a head that the party signed and that extends the last one: the same size has the same root, a larger
        one has an RFC 6962 consistency proof (node hashes in hex; none at first sight).

        Raises LedgerError, which names the party and both sizes, and then the last head stays.
        """
        if not head.verifies(party, key):
            raise LedgerError(
                f"the signature of its head at size {head.size} is wrong: another key than this party's signed it",
                where=party,
            )
        last = self.last(party)
        if head.size < last.size:
            raise LedgerError(
                f"rewritten history or a split view: its head has size {head.size}, after one at size {last.size}",
                where=party,
                remedy=_REMEDY,
            )
        if not _extends(last, head, proof):
            raise LedgerError(
                f"rewritten history or a split view: its head at size {head.size} does not extend the one at size "
                f"{last.size} that was seen before",
                where=party,
                remedy=_REMEDY,
            )
        self._seen[party] = Seen(head.size, head.root)

    def begin_anew(self, party: str, head: Head, key: VerifyKey) -> None:
        """Keep a head that comes without a proof from the last one, which was lost on the way. Raises LedgerError for a
        wrong signature. Whether both are of one history shows when the ledgers are compared."""
        last = self._seen.pop(party, None)
        try:
            self.accept(party, head, (), key)
        except LedgerError:
            if last is not None:
                self._seen[party] = last
            raise


_REMEDY = "keep your own ledger, and compare: medfed ledger verify with this party's ledger and yours"


def _extends(last: Seen, head: Head, proof: Sequence[str]) -> bool:
    try:
        root = bytes.fromhex(head.root)
        nodes = [bytes.fromhex(node) for node in proof]
    except ValueError:
        return False
    if len(nodes) > _LONGEST_PROOF or any(len(node) != _HASH for node in (root, *nodes)) or root.hex() != head.root:
        return False
    if last.size == 0:
        return not nodes and (head.size > 0 or head.root == EMPTY_ROOT.hex())
    return verify_consistency(last.size, head.size, bytes.fromhex(last.root), root, nodes)
