"""The parties' append-only ledgers: ``<party>.jsonl`` and its signed heads, ``<party>.heads.jsonl``.

No ledger, no release: whatever keeps an entry from being written raises Refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn, TypeVar

from medfed.core.errors import LedgerError, RefusalReason, Refused, UserError
from medfed.core.files import sync_folder
from medfed.govern.chain import Chain, follow_ledger, heads_path, ledger_path
from medfed.govern.entries import (
    ClosedEntry,
    Entry,
    Recorded,
    ReleaseEntry,
    ResumedEntry,
    WitnessEntry,
    decode_entry,
    encode_entry,
    now,
)
from medfed.govern.heads import Head, encode_head
from medfed.govern.keys import SigningKey
from medfed.govern.lines import AppendFolder, LineFile
from medfed.govern.merkle import leaf_hash
from medfed.govern.proofs import FileTree

E = TypeVar("E", bound=Entry)

_LOCK = ".lock"
_LONGEST_PAUSE = 0.05


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
    def open(cls, path: Path, key: SigningKey, *, durable: bool, patience: float = 0.0) -> LedgerFolder:
        """Make the folder, or go on with it; ``key`` signs every party's heads.

        durable: an entry is on the disk before :meth:`Ledger.append` returns. patience: seconds to wait for the folder
        while another writes there. Raises Refused where the folder cannot be written or is still in use.
        """
        lock = -1
        try:
            _make(path, durable=durable)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _lock(lock, patience)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            if isinstance(error, BlockingIOError):
                raise _in_use(str(path)) from error
            _refuse(error, str(path))
        return cls(AppendFolder(path, durable=durable), key, lock)

    def ledger(self, party: str, *, briefly: bool = False) -> Ledger:
        """Begin a party's ledger, or go on with it after checking its chain and its heads.

        Going on cuts off a line that a kill left unfinished and appends a ``resumed`` entry, to a closed ledger only
        before another one; briefly: to go on is the rule, so that only a cut is worth an entry. Raises LedgerError
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
        if cut or (ledger.size and not briefly and not ledger.ended):
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

    acted: whether it has entries other than witnessed heads since its last signed head. released: the last release.
    ended: whether it was closed when it was opened, and nothing was added since.
    """

    __slots__ = (
        "_entries",
        "_heads",
        "_key",
        "_previous",
        "_round",
        "_tree",
        "_whole",
        "acted",
        "ended",
        "party",
        "released",
    )

    def __init__(self, chain: Chain, key: SigningKey, entries: LineFile, heads: LineFile) -> None:
        self.party = chain.party
        self.acted = chain.acted
        self.released = chain.released
        self.ended = isinstance(chain.last, ClosedEntry) and chain.vouched == chain.tree.size
        self._key = key
        self._tree = chain.tree
        self._previous = chain.previous
        self._round = chain.heads[-1].round if chain.heads else 0
        self._entries = entries
        self._heads = heads
        self._whole: FileTree | None = None

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._tree.size

    def append(self, *entries: Entry) -> int:
        """Add entries, all or none; returns the index of the first. Raises Refused where they cannot be written:
        nothing may leave."""
        if not entries:
            return self.size
        if self.ended and not isinstance(entries[0], ResumedEntry):
            self.append(ResumedEntry(0))
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
        self.ended = False
        self.acted = self.acted or not all(isinstance(entry, WitnessEntry) for entry in entries)
        return first

    def release(self, entry: ReleaseEntry) -> None:
        """Add a release; not once more, where a process ended between its entry and what was to be kept of it.

        Raises as :meth:`append`.
        """
        if entry != self.released:
            self.append(entry)
            self.released = entry

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

    def consistency(self, first: int, size: int | None = None) -> tuple[str, ...]:
        """The RFC 6962 consistency proof, in hex, from a size that another party saw (0: none) to ``size``, or to now.

        The lines are read from the disk, each once, and their hashes kept from the first call on (64 bytes an entry).
        Raises LedgerError where the other party saw more entries than there are, or where the file is not what was
        written.
        """
        size = self.size if size is None else size
        if not 0 <= first <= size <= self.size:
            raise LedgerError(
                f"another party saw its ledger at size {first}, but it has {size} entries: some were lost",
                where=self.party,
                remedy="do not go on with an old copy of this ledger: find the newer one",
            )
        if first == 0:
            return ()
        if self._whole is None:
            self._whole = FileTree(self._path)
        tree = self._whole.grown_to(self.size, self.party)
        if tree.root(self.size) != self._tree.root():
            raise LedgerError("its file was changed while it was written", where=self.party)
        return tuple(node.hex() for node in tree.consistency(first, size))

    def witnessed(self) -> Iterator[WitnessEntry]:
        """The heads of other parties that are recorded here, in order, read from the disk."""
        yield from self.entries(WitnessEntry)

    def entries(self, *kinds: type[E], since: int = 0) -> Iterator[E]:
        """The entries of these kinds from that index on, in order, read from the disk."""
        if self.size == 0:
            return
        marks = [f'"kind":"{kind.KIND}"'.encode() for kind in kinds]
        with self._path.open("rb") as file:
            for line in islice(file, since, None):
                if line.endswith(b"\n") and any(mark in line for mark in marks):
                    entry = decode_entry(line[:-1]).entry
                    if isinstance(entry, kinds):
                        yield entry

    @property
    def _path(self) -> Path:
        return self._entries.folder.path / self._entries.name


@contextmanager
def open_briefly(
    path: Path, key: SigningKey, party: str, *, durable: bool = True, patience: float = 10.0
) -> Iterator[Ledger]:
    """A ledger that several processes append to in turn: wait for it, yield it, sign its head, and give it back.

    patience: seconds to wait while another has it. Append only what is at hand: whoever else wants it is waiting. After
    a kill in the middle the next opening signs what was left unsigned. Where the body raises, nothing is signed.
    Raises what :meth:`LedgerFolder.open` and :meth:`LedgerFolder.ledger` raise.
    """
    with LedgerFolder.open(path, key, durable=durable, patience=patience) as folder:
        ledger = folder.ledger(party, briefly=True)
        yield ledger
        ledger.sign_head(0)


def _make(path: Path, *, durable: bool) -> None:
    """Make a folder and those above it; durable: their names too are on the disk."""
    if path.is_dir():
        return
    if path.parent != path:
        _make(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync_folder(path.parent)


def _lock(descriptor: int, patience: float) -> None:
    """Take the lock, trying for that many seconds. Raises BlockingIOError where another has it all the while."""
    end, pause = monotonic() + patience, 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= end:
                raise
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            return


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
