"""A site's memory: what it keeps between requests, so that no lost reply and no resumed coordinator corrupts it.

Every request handled makes a version: the reply, and the messages kept. A request names the version it builds on
(``base``: the one that the last reply told the coordinator) and the one that the coordinator has checkpointed
(``settled``). Three rules follow:

- A repeated request, the same bits for the same round and call, gets the stored reply: nothing is computed twice.
- A request whose base is older than the newest version means that later replies were lost, or that the coordinator
  resumed: the abandoned versions no longer count.
- Versions up to ``settled`` are folded into one and their replies forgotten. A request that builds on anything
  older is refused, for it would count work twice.

Replies and kept messages are in the run's store; the process holds only numbers and digests of versions that are
not settled, from when the site is first asked for something. A version is committed before its reply leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from functools import partial
from mmap import mmap
from typing import Any, TypeVar, cast

from medfed.core.codec import Buffer, decode, parts
from medfed.core.errors import CodecError, MemoryLost
from medfed.core.messages import Message
from medfed.core.wire import Reply, Request
from medfed.engine.database import Change, Database, damaged
from medfed.engine.kept import KeptMessages
from medfed.engine.large import LargeFiles
from medfed.engine.versions import Kept, Spare, Version, Versions

M = TypeVar("M", bound=Message)

SCHEMA = """
CREATE TABLE settled (
    site TEXT PRIMARY KEY, number INTEGER NOT NULL, requests INTEGER NOT NULL, released_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE version (
    site TEXT, number INTEGER, base INTEGER NOT NULL, digest TEXT NOT NULL, requests INTEGER NOT NULL,
    released_bytes INTEGER NOT NULL, file TEXT NOT NULL, reply BLOB NOT NULL, PRIMARY KEY (site, number)
);
CREATE TABLE kept (
    site TEXT, version INTEGER, kind TEXT, digest BLOB NOT NULL, file TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (site, version, kind)
)"""
"""Settled versions, those that are not, and the messages kept by both (``kind``: name on the wire). A content that
has a file is empty here. Tables with contents have row ids, so that new rows are written side by side."""


class SiteMemory:
    """The memory of one run at one site; :meth:`medfed.engine.store.RunStore.site` gives it."""

    __slots__ = ("_database", "_failed", "_files", "_loaded", "_messages", "_site", "_spare", "_stored_settled")

    def __init__(self, database: Database, files: LargeFiles, messages: KeptMessages, site: str) -> None:
        self._database = database
        self._files = files
        self._messages = messages
        self._site = site
        self._failed = 0
        self._loaded: Versions | None = None
        self._spare = Spare()
        self._stored_settled = 0

    @property
    def requests(self) -> int:
        """The requests of this run: those handled, and those that failed since the process began."""
        return self._versions().last.requests + self._failed

    @property
    def released_bytes(self) -> int:
        """The bytes released in this run."""
        return self._versions().last.released_bytes

    @property
    def newest_version(self) -> int:
        """The number of the newest version; it never falls, whatever is abandoned. 0: there is none."""
        return self._versions().newest

    def count_failure(self) -> None:
        """Count a request that was refused or failed, so that no limit is got round by failing."""
        self._failed += 1

    def stored_reply(self, request: Request) -> Reply | None:
        """The reply already given to this very request, or None."""
        digest = request.digest()
        for number, version in self._versions().unsettled.items():
            if version.digest == digest:
                return _reply(request, number, self._body(number, version.file))
        return None

    def at(self, base: int) -> dict[type[Message], Message]:
        """What was kept as of a version, by type; equal messages are one object, also over sites.

        Raises MemoryLost where this site never made that version, or has already folded it into a later one.
        """
        found = [self._message(kind, kept) for kind, kept in self._versions().kept(base).items()]
        return {type(message): message for message in found}

    def newest(self, kind: type[M]) -> M:
        """The message of this type as the site has it now. Raises MemoryLost where it never kept one."""
        versions = self._versions()
        kept = versions.kept(versions.newest).get(kind.WIRE)
        message = None if kept is None else self._message(kind.WIRE, kept)
        if not isinstance(message, kind):
            raise MemoryLost(f"the site never kept a {kind.__name__}", where=self._site)
        return message

    def settle(self, number: int) -> None:
        """Fold all versions up to ``number``; the coordinator has checkpointed it.

        The store learns of it with the next record, which is written over what was folded: should the process end
        before, the next request says again what is settled. Files are removed at once.
        """
        versions = self._versions()
        if number not in versions.unsettled:
            return
        replies, superseded = versions.settle(number)
        self._spare.replies += [n for n, file in replies if not file]
        self._spare.kept += [(kind, place.version) for kind, place in superseded if not place.file]
        changes = [_delete_reply(self._site, n) for n, file in replies if file]
        changes += [_delete_message(self._site, kind, place.version) for kind, place in superseded if place.file]
        if changes:
            files = {file for _, file in replies} | {place.file for _, place in superseded}
            self._write([*self._settled(versions), *changes], removed=files - {""})

    def _settled(self, versions: Versions) -> list[Change]:
        """The change that tells the store what is settled, if it does not know."""
        if self._stored_settled == versions.settled:
            return []
        self._stored_settled = versions.settled
        folded = (self._site, versions.settled, versions.folded.requests, versions.folded.released_bytes)
        return [("INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)", folded)]

    def record(self, request: Request, reply_body: Message, kept: tuple[Message, ...], released: int) -> Reply:
        """Store the outcome of a request as a new version, and return the reply that carries its number.

        Versions that are not among the ancestors of the request's base are abandoned. Raises RunFolderError where
        it cannot be written: the memory is as it was.
        """
        versions = self._versions()
        number, last, digest = versions.newest + 1, versions.last, request.digest()
        counters = last.requests + 1, last.released_bytes + released
        abandoned = versions.unsettled.keys() - set(versions.chain(request.base))
        places: dict[str, Kept] = {}
        contents: list[tuple[bytes, bytes]] = []
        written: set[str] = set()
        changes = self._settled(versions)
        try:
            file, body = self._stored(str(number), parts(reply_body), written)
            version = (number, request.base, digest, *counters, file, body)
            changes.append(self._version_row(version, self._spare.reply()))
            for message in kept:
                pieces, kind = parts(message), message.WIRE
                place_file, content = self._stored(f"{number}.{kind}", pieces, written)
                places[kind] = place = Kept(number, _sha256(pieces), place_file)
                contents.append((place.digest, content))
                row = (number, kind, place.digest, place_file, content)
                changes.append(self._kept_row(row, self._spare.message(kind)))
            changes += [_delete_reply(self._site, n) for n in (*abandoned, *self._spare.surplus())]
            changes += [("DELETE FROM kept WHERE site = ? AND version = ?", (self._site, n)) for n in abandoned]
            self._write(changes, written, {name for n in abandoned for name in versions.unsettled[n].files})
        except BaseException:
            self._undo(written)
            raise
        versions.add(number, Version(request.base, digest, *counters, places, file))
        for content_digest, content in contents:
            if content:
                self._messages.add(content_digest, content)
        return _reply(request, number, reply_body)

    def _version_row(self, row: tuple[Any, ...], spare: int | None) -> Change:
        """The change that writes a version, over a spare row where there is one."""
        if spare is None:
            return "INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (self._site, *row)
        return (
            "UPDATE version SET number = ?, base = ?, digest = ?, requests = ?, released_bytes = ?, file = ?, reply = ?"
            " WHERE site = ? AND number = ?",
            (*row, self._site, spare),
        )

    def _kept_row(self, row: tuple[Any, ...], spare: int | None) -> Change:
        """The change that writes a message kept, over a spare row of its kind where there is one."""
        if spare is None:
            return "INSERT INTO kept VALUES (?, ?, ?, ?, ?, ?)", (self._site, *row)
        return (
            "UPDATE kept SET version = ?, kind = ?, digest = ?, file = ?, content = ?"
            " WHERE site = ? AND version = ? AND kind = ?",
            (*row, self._site, spare, row[1]),
        )

    def _stored(self, name: str, pieces: Sequence[Buffer], written: set[str]) -> tuple[str, bytes]:
        """The file that took a content, or the bytes for the database; the other is empty."""
        if not self._files.takes(sum(map(len, pieces))):
            return "", b"".join(pieces)
        self._files.write(self._site, name, pieces)
        written.add(name)
        return name, b""

    def _write(self, changes: list[Change], written: Set[str] = frozenset(), removed: Set[str] = frozenset()) -> None:
        """Commit changes; files go with the transaction: new ones if it fails, old ones if it does not."""
        undone, done = partial(self._undo, written), partial(self._files.remove, self._site, removed)
        self._database.write(changes, undone=undone, done=done if removed else None)

    def _undo(self, written: Set[str]) -> None:
        """Nothing was committed: what stands in the store counts."""
        self._files.remove(self._site, written)
        self._loaded = None

    def _versions(self) -> Versions:
        if self._loaded is None:
            self._loaded = self._load()
            self._files.keep_only(self._site, self._loaded.files)
        return self._loaded

    def _load(self) -> Versions:
        """The versions that the store holds; rows beside theirs are spare."""
        self._spare = Spare()
        rows = self._rows("SELECT number, requests, released_bytes FROM settled WHERE site = ?")
        settled, requests, released = rows[0] if rows else (0, 0, 0)
        self._stored_settled = settled
        kept: dict[int, dict[str, Kept]] = {settled: {}}
        rows = self._rows("SELECT version, kind, digest, file FROM kept WHERE site = ? ORDER BY version")
        for number, kind, digest, file in rows:
            of_version = kept.setdefault(max(number, settled), {})
            if kind in of_version:
                self._spare.kept.append((kind, of_version[kind].version))
            of_version[kind] = Kept(number, digest, file)
        rows = self._rows(
            "SELECT number, base, digest, requests, released_bytes, file FROM version WHERE site = ? ORDER BY number"
        )
        unsettled: dict[int, Version] = {}
        for number, base, digest, handled, sent, file in rows:
            if number > settled:
                unsettled[number] = Version(base, digest, handled, sent, kept.get(number, {}), file)
            else:
                self._spare.replies.append(number)
        return Versions(settled, Version(0, "", requests, released, kept[settled]), unsettled)

    def _body(self, number: int, file: str) -> Message:
        statement = "SELECT reply FROM version WHERE site = ? AND number = ?"
        try:
            return decode(self._content(file, statement, number), Message)
        except CodecError as error:
            raise damaged(self._database.where) from error

    def _message(self, kind: str, kept: Kept) -> Message:
        statement = "SELECT content FROM kept WHERE site = ? AND version = ? AND kind = ?"
        try:
            return self._messages.get(kept.digest, lambda: self._content(kept.file, statement, kept.version, kind))
        except CodecError as error:
            raise damaged(self._database.where) from error

    def _content(self, file: str, statement: str, *values: object) -> bytes | mmap:
        if file:
            return self._files.read(self._site, file)
        rows = self._rows(statement, *values)
        if not rows:
            raise damaged(self._database.where)
        return cast(bytes, rows[0][0])

    def _rows(self, statement: str, *values: object) -> list[Any]:
        return self._database.execute(statement, (self._site, *values))


def _delete_reply(site: str, number: int) -> Change:
    return "DELETE FROM version WHERE site = ? AND number = ?", (site, number)


def _delete_message(site: str, kind: str, version: int) -> Change:
    return "DELETE FROM kept WHERE site = ? AND version = ? AND kind = ?", (site, version, kind)


def _reply(request: Request, number: int, body: Message) -> Reply:
    return Reply(request.run, request.site, request.round, request.call, number, request.digest(), body)


def _sha256(pieces: Sequence[Buffer]) -> bytes:
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
    return hashed.digest()
