"""The parties' append-only ledgers: ``<party>.jsonl`` and its signed heads, ``<party>.heads.jsonl``.

No ledger, no release: whatever keeps an entry from being written raises Refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.govern.chain import Chain, follow_ledger, heads_path, ledger_path
from medfed.govern.entries import ClosedEntry, Entry, Recorded, ResumedEntry, WitnessEntry, encode_entry, now
from medfed.govern.heads import Head, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.lines import AppendFolder, LineFile
from medfed.govern.merkle import leaf_hash

_LOCK = ".lock"


class LedgerFolder:
    """The ledgers of one run's parties, written by one process and the workers that it forks.

    Nobody else can open the folder until all of these have closed it, ended or been killed. Each ledger is for the
    process that asked for it. Usable as a context manager.
    """

    def __init__(self, files: AppendFolder, key: SigningKey, lock: int) -> None:
        self._files = files
        self._key = key
        self._verify_key = key.verify_key
        self._lock = lock
        self._parties: set[str] = set()

    @classmethod
    def open(cls, path: Path, key: SigningKey, *, durable: bool) -> LedgerFolder:
        """Make the folder, or go on with it; ``key`` signs every party's heads.

        durable: an entry is on the disk before :meth:`Ledger.append` returns. Raises Refused where the folder
        cannot be written or is in use.
        """
        lock = -1
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            if isinstance(error, BlockingIOError):
                raise _in_use(str(path)) from error
            _refuse(error, str(path))
        return cls(AppendFolder(path, durable=durable), key, lock)

    def ledger(self, party: str) -> Ledger:
        """Begin a party's ledger, or go on with it after checking its chain and its heads.

        Going on cuts off a line that a kill left unfinished and appends a ``resumed`` entry. Raises LedgerError
        where an existing ledger does not verify, Refused where it cannot be read or written or was asked for
        before, UserError for an impossible party name.
        """
        if not party or party.startswith(".") or "/" in party or party.endswith(".heads"):
            raise UserError(f"{party!r} cannot be a party's name", remedy="rename the site")
        if party in self._parties:
            raise _in_use(party)
        folder = self._files.path
        try:
            entries = LineFile.existing(self._files, ledger_path(folder, party).name)
            heads = LineFile.existing(self._files, heads_path(folder, party).name)
            cut = entries.cut_torn_line() + heads.cut_torn_line()
        except OSError as error:
            _refuse(error, party)
        chain = follow_ledger(folder, party, self._verify_key) if entries.end or heads.end else Chain(party, [])
        ledger = Ledger(chain, self._key, entries, heads)
        if ledger.size or cut:
            ledger.append(ResumedEntry(cut))
        self._parties.add(party)
        return ledger

    def close(self) -> None:
        """Give the files back as they are: the run may go on later. A second call does nothing."""
        self._files.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> LedgerFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ledger:
    """One party's ledger, for appending; :meth:`LedgerFolder.ledger` opens it.

    acted: whether it has entries other than witnessed heads since its last signed head.
    """

    __slots__ = ("_entries", "_heads", "_key", "_previous", "_round", "_tree", "acted", "party")

    def __init__(self, chain: Chain, key: SigningKey, entries: LineFile, heads: LineFile) -> None:
        self.party = chain.party
        self.acted = chain.acted
        self._key = key
        self._tree = chain.tree
        self._previous = chain.previous
        self._round = chain.heads[-1].round if chain.heads else 0
        self._entries = entries
        self._heads = heads

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._tree.size

    def append(self, *entries: Entry) -> int:
        """Add entries, all or none; returns the index of the first. Raises Refused where they cannot be written:
        nothing may leave."""
        first, previous, time = self._tree.size, self._previous, now()
        lines, leaves = [], []
        for index, entry in enumerate(entries, start=first):
            lines.append(encode_entry(Recorded(index, time, previous, entry)))
            leaves.append(leaf_hash(lines[-1]))
            previous = leaves[-1].hex()
        try:
            self._entries.append(*lines)
        except OSError as error:
            _refuse(error, self.party)
        for leaf in leaves:
            self._tree.append(leaf)
        self._previous = previous
        self.acted = self.acted or not all(isinstance(entry, WitnessEntry) for entry in entries)
        return first

    def sign_head(self, round: int) -> Head:  # noqa: A002
        """Sign the ledger as it stands after a round, and keep the head. Raises Refused as :meth:`append`."""
        head = Head.sign(self.party, self._tree.size, self._tree.root(), round, self._key)
        try:
            self._heads.append(encode_head(head))
        except OSError as error:
            _refuse(error, self.party)
        self._round = round
        self.acted = False
        return head

    def witness(self, head: Head, party: str, run: str) -> int:
        """Record another party's head, so that its ledger cannot be rewritten without this one's."""
        return self.witness_all({party: head}, run)

    def witness_all(self, heads: Mapping[str, Head], run: str) -> int:
        """:meth:`witness` of several parties' heads, in the order of their names."""
        return self.append(
            *(WitnessEntry(run, head.round, party, head.size, head.root) for party, head in sorted(heads.items()))
        )

    def close(self, run: str, status: str) -> Head:
        """Record how the run ended, and sign that."""
        self.append(ClosedEntry(run, status))
        return self.sign_head(self._round)


def _in_use(where: str) -> Refused:
    return Refused(
        "its ledger is in use by another run of MedFed",
        where=where,
        reason=RefusalReason.LEDGER,
        remedy="wait for the other run to end, or end it",
    )


def _refuse(error: OSError, party: str) -> NoReturn:
    raise Refused(
        f"its ledger could not be written ({error.strerror or error}), so nothing leaves",
        where=party,
        reason=RefusalReason.LEDGER,
        remedy="free disk space or mend the folder's permissions, then go on with: medfed run --resume DIR",
    ) from error
