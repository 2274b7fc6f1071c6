"""A party's append-only ledger: ``<party>.jsonl`` and its signed heads, ``<party>.heads.jsonl``.

No ledger, no release: whatever keeps an entry from being written raises Refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.core.files import sync_folder
from medfed.govern.chain import Chain, follow_ledger, heads_path, ledger_path
from medfed.govern.entries import ClosedEntry, Entry, Recorded, ResumedEntry, WitnessEntry, encode_entry, now
from medfed.govern.heads import Head, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.merkle import leaf_hash


@dataclass
class _LineFile:
    """A file open for appending whole lines, by one process only; a line that fails leaves it as it was.

    Opening raises BlockingIOError where another has it open; one that ends or is killed lets go of it.
    """

    path: Path
    durable: bool

    def __post_init__(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.end = os.lseek(self.descriptor, 0, os.SEEK_END)
        except OSError:
            self.close()
            raise

    def append(self, line: bytes) -> None:
        """Write the line and its newline, at once and whole. Raises OSError; then nothing was added."""
        rest = line + b"\n"
        end = self.end + len(rest)
        try:
            self._cut_remains()
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
            if self.durable:
                os.fsync(self.descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut_remains()
            raise
        self.end = end

    def _cut_remains(self) -> None:
        """Cut off what a failed line left behind."""
        if os.lseek(self.descriptor, 0, os.SEEK_END) != self.end:
            os.ftruncate(self.descriptor, self.end)

    def cut_torn_line(self) -> int:
        """Cut off an unfinished last line; returns its bytes."""
        torn = 0
        with self.path.open("rb") as file:
            for line in file:
                torn = 0 if line.endswith(b"\n") else len(line)
        self.end -= torn
        self._cut_remains()
        return torn

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Ledger:
    """One party's ledger, open for appending by one process at a time.

    Usable as a context manager, which gives the files back without closing the run's record.
    """

    def __init__(self, chain: Chain, key: SigningKey, entries: _LineFile, heads: _LineFile) -> None:
        self.party = chain.party
        self._key = key
        self._tree = chain.tree
        self._previous = chain.previous
        self._round = chain.heads[-1].round if chain.heads else 0
        self._entries = entries
        self._heads = heads

    @classmethod
    def open(cls, folder: Path, party: str, key: SigningKey, *, durable: bool) -> Ledger:
        """Begin a ledger, or go on with one after checking its chain and its heads.

        Going on cuts off a line that a kill left unfinished and appends a ``resumed`` entry. durable: an
        entry is on the disk before :meth:`append` returns. Raises LedgerError where an existing ledger does
        not verify, Refused where it cannot be written or is in use, UserError for an impossible party name.
        """
        if not party or party.startswith(".") or "/" in party or party.endswith(".heads"):
            raise UserError(f"{party!r} cannot be a party's name", remedy="rename the site")
        with contextlib.ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                entries = _LineFile(ledger_path(folder, party), durable)
                undo.callback(entries.close)
                heads = _LineFile(heads_path(folder, party), durable)
                undo.callback(heads.close)
                cut = entries.cut_torn_line() + heads.cut_torn_line()
                if durable:
                    sync_folder(folder)
            except BlockingIOError as error:
                raise Refused(
                    "its ledger is in use by another run of MedFed",
                    where=party,
                    reason=RefusalReason.LEDGER,
                    remedy="wait for the other run to end, or end it",
                ) from error
            except OSError as error:
                _refuse(error, party)
            ledger = cls(follow_ledger(folder, party, key.verify_key), key, entries, heads)
            if ledger.size or cut:
                ledger.append(ResumedEntry(cut))
            undo.pop_all()
        return ledger

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._tree.size

    def append(self, entry: Entry) -> int:
        """Add an entry; returns its index. Raises Refused where it cannot be written: nothing may leave."""
        index = self._tree.size
        line = encode_entry(Recorded(index, now(), self._previous, entry))
        try:
            self._entries.append(line)
        except OSError as error:
            _refuse(error, self.party)
        leaf = leaf_hash(line)
        self._tree.append(leaf)
        self._previous = leaf.hex()
        return index

    def sign_head(self, round: int) -> Head:  # noqa: A002
        """Sign the ledger as it stands after a round, and keep the head. Raises Refused as :meth:`append`."""
        head = Head.sign(self.party, self._tree.size, self._tree.root(), round, self._key)
        try:
            self._heads.append(encode_head(head))
        except OSError as error:
            _refuse(error, self.party)
        self._round = round
        return head

    def witness(self, head: Head, party: str, run: str) -> int:
        """Record another party's head, so that its ledger cannot be rewritten without this one's."""
        return self.append(WitnessEntry(run, head.round, party, head.size, head.root))

    def close(self, run: str, status: str) -> Head:
        """Record how the run ended, sign that, and give the files back."""
        self.append(ClosedEntry(run, status))
        head = self.sign_head(self._round)
        self.detach()
        return head

    def detach(self) -> None:
        """Give the files back as they are: the run may go on later."""
        self._entries.close()
        self._heads.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def _refuse(error: OSError, party: str) -> NoReturn:
    raise Refused(
        f"its ledger could not be written ({error.strerror or error}), so nothing leaves",
        where=party,
        reason=RefusalReason.LEDGER,
        remedy="free disk space or mend the folder's permissions, then go on with: medfed run --resume DIR",
    ) from error
