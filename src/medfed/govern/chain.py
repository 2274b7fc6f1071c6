"""Following a ledger's file from its first line to its last, and saying where it was tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medfed.core.errors import LedgerError
from medfed.govern.entries import Entry, Recorded, ReleaseEntry, WitnessEntry, decode_entry
from medfed.govern.heads import Head, decode_head
from medfed.govern.keys import VerifyKey
from medfed.govern.merkle import MerkleTree, leaf_hash

HEADS_SUFFIX = ".heads.jsonl"


def ledger_path(folder: Path, party: str) -> Path:
    """The file of a party's entries."""
    return folder / f"{party}.jsonl"


def heads_path(folder: Path, party: str) -> Path:
    """The file of a party's signed heads."""
    return folder / f"{party}{HEADS_SUFFIX}"


@dataclass(frozen=True)
class Witnessed:
    """A witness entry, and where it stands."""

    index: int
    entry: WitnessEntry


@dataclass
class Chain:
    """A party's ledger as far as it was followed.

    previous: the leaf hash of the last line, in hex. heads: all signed heads, in order; heads_reached: how
    many of them were reached and agreed; vouched: the size of the last of these. acted: whether there are entries
    other than witnessed heads after it. released: the last release, if there is one.
    """

    party: str
    heads: list[Head]
    tree: MerkleTree = field(default_factory=MerkleTree)
    previous: str = ""
    last: Entry | None = None
    run: str | None = None
    witnessed: list[Witnessed] = field(default_factory=list)
    vouched: int = 0
    heads_reached: int = 0
    acted: bool = False
    released: ReleaseEntry | None = None

    def follow(self, line: bytes) -> None:
        """Check that a line continues the chain. Raises LedgerError."""
        index = self.tree.size
        try:
            recorded = decode_entry(line)
        except ValueError as error:
            raise self._wrong(index, f"its contents changed: {error}") from None
        self._check_place(recorded, index)
        self._check_run(recorded.entry, index)
        if isinstance(recorded.entry, WitnessEntry):
            self.witnessed.append(Witnessed(index, recorded.entry))
        else:
            self.acted = True
        if isinstance(recorded.entry, ReleaseEntry):
            self.released = recorded.entry
        leaf = leaf_hash(line)
        self.tree.append(leaf)
        self.previous = leaf.hex()
        self.last = recorded.entry

    def check_heads_reached(self) -> None:
        """Check the ledger so far against the signed heads of just this size. Raises LedgerError."""
        while self.heads_reached < len(self.heads):
            head = self.heads[self.heads_reached]
            if head.size != self.tree.size:
                return
            if head.root != self.tree.root().hex():
                raise LedgerError(
                    f"an entry between head at size {self.vouched} and size {head.size} changed, and "
                    "the links between entries do not tell which",
                    where=self.party,
                )
            self.vouched = head.size
            self.acted = False
            self.heads_reached += 1

    def check_complete(self) -> None:
        """Check that the file did not end before its last signed head. Raises LedgerError."""
        if self.heads_reached < len(self.heads):
            missed = self.heads[self.heads_reached].size
            raise LedgerError(
                f"truncated between head at size {self.vouched} and size {missed}: {self.tree.size} entries are left",
                where=self.party,
            )

    def _check_place(self, recorded: Recorded, index: int) -> None:
        if recorded.index > index:
            raise self._wrong(index, f"it was dropped or reordered: entry {recorded.index} stands in its place")
        if recorded.index < index:
            raise self._wrong(
                index, f"entry {recorded.index} stands here: an entry was inserted, duplicated or reordered"
            )
        if recorded.previous == self.previous:
            return
        if index == self.vouched:
            raise self._wrong(index, "its contents changed: it does not follow from the entry before it")
        raise self._wrong(index - 1, f"its contents changed, or the link to it in entry {index} did")

    def _check_run(self, entry: Entry, index: int) -> None:
        run = getattr(entry, "run", self.run)
        if self.run is not None and run != self.run:
            raise self._wrong(index, "it belongs to another run than the entries before it")
        self.run = run

    def _wrong(self, index: int, cause: str) -> LedgerError:
        return LedgerError(cause, where=f"{self.party}: entry {index} (line {index + 1})")


def follow_ledger(folder: Path, party: str, key: VerifyKey) -> Chain:
    """Follow a party's whole ledger and check each of its signed heads. Raises LedgerError, which locates."""
    chain = Chain(party, _read_heads(folder, party, key))
    chain.check_heads_reached()
    for line in _lines(ledger_path(folder, party), party):
        chain.follow(line)
        chain.check_heads_reached()
    chain.check_complete()
    return chain


def _read_heads(folder: Path, party: str, key: VerifyKey) -> list[Head]:
    heads: list[Head] = []
    path = heads_path(folder, party)
    if not path.exists():
        return heads
    for number, line in enumerate(_lines(path, party), start=1):
        where = f"{party}: signed head (line {number} of {path.name})"
        try:
            head = decode_head(line)
        except ValueError as error:
            raise LedgerError(f"it was changed: {error}", where=where) from None
        if not head.verifies(party, key):
            raise LedgerError(
                "its signature is wrong: it was changed, or another key than this party's signed it",
                where=where,
            )
        if heads and head.size < heads[-1].size:
            raise LedgerError("heads were reordered", where=where)
        heads.append(head)
    return heads


def _lines(path: Path, party: str) -> Iterator[bytes]:
    """The lines without their newlines. Raises LedgerError for a file that is unreadable or breaks off."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    raise LedgerError(
                        f"line {number} of {path.name} breaks off",
                        where=f"{party}: entry {number - 1} (line {number})",
                        remedy="if the run was killed, medfed run --resume DIR cuts it off and records that",
                    )
                yield line[:-1]
    except OSError as error:
        raise LedgerError(f"{path.name} cannot be read ({error.strerror})", where=party) from error
