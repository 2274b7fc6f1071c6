"""One SQLite file that several processes may write side by side, each through its own connection."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from medfed.core.errors import RunFolderError

Change: TypeAlias = tuple[str, tuple[Any, ...]]
"""A statement, and its values."""

_FORMAT = 0x4D46_0003
"""Stands in the file's header (``user_version``), so that another program's file is not taken for ours."""

_BUSY_SECONDS = 60
_BETWEEN_TRIES = 1e-4
"""SQLite's own waiting begins with whole milliseconds, and another process's transaction is over before."""

_PAGE_BYTES = 2**13
_WAL_BYTES = 2**24
_CACHE_KIB = 4 * 1024

_GO_ON = "free disk space or mend the folder's permissions, then go on with: medfed run --resume DIR"


class Database:
    """A connection of this process. A process that is killed leaves the file as of its last commit.

    No connection to the file may be open in a process when it forks: SQLite's locks do not survive that, and what
    the child wrote could be lost. A child that opens the file all the same gets a RuntimeError.
    """

    _open: ClassVar[weakref.WeakSet[Database]] = weakref.WeakSet()

    def __init__(self, path: Path | None, schema: str, *, durable: bool, beside: int = 0) -> None:
        """Open the file, or begin it, for nobody but its owner; None: a private database in memory.

        durable: what is committed survives a power cut, not only a kill. beside: the others that this process has
        open, which share the memory for pages. Raises RunFolderError where the file
        cannot be opened or written, is damaged, or is another program's.
        """
        self.path = path = path and path.resolve()
        self._process = os.getpid()
        self._undone: list[Callable[[], None]] = []
        self._done: list[Callable[[], None]] = []
        self._pending: list[Change] = []
        self._begun = False
        if any(other.path == path and other._process != self._process for other in Database._open if path):
            raise RuntimeError(f"{path} was open when this process was forked; close it before")
        if path is not None:
            _create_private(path)
        try:
            self._connection = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            self._prepare(schema, durable=durable, cache=_CACHE_KIB // (1 + beside))
        except BaseException:
            self._connection.close()
            raise
        Database._open.add(self)

    @property
    def where(self) -> str:
        """The file, as errors name it."""
        return "memory" if self.path is None else str(self.path)

    def _prepare(self, schema: str, *, durable: bool, cache: int) -> None:
        self.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self.execute(f"PRAGMA cache_size=-{cache}")
        self.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        self.execute("PRAGMA journal_mode=WAL")
        self.execute(f"PRAGMA wal_autocheckpoint={_WAL_BYTES // _PAGE_BYTES}")
        with self.transaction():
            self.execute("BEGIN IMMEDIATE")
            ((found,),) = self.execute("PRAGMA user_version")
            if found == 0 and not self.execute("SELECT 1 FROM sqlite_master"):
                for statement in schema.split(";"):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version={_FORMAT}")
            elif found != _FORMAT:
                raise RunFolderError(
                    "this file is not of this version of MedFed", where=self.where, remedy="start a new run"
                )

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows of one statement, which sees what was written before it. Raises RunFolderError."""
        if self._process != os.getpid():
            raise RuntimeError(f"{self.where} was opened before this process was forked; open it anew")
        if self._pending:
            self._apply_pending()
        patience = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > patience:
                    raise self._explained(error) from error
            time.sleep(_BETWEEN_TRIES)

    def write(
        self,
        changes: Sequence[Change],
        *,
        undone: Callable[[], None] | None = None,
        done: Callable[[], None] | None = None,
    ) -> None:
        """Make all changes or none, in the transaction that was begun or in one of their own.

        undone, done: called once it is known that the transaction was not, or was, committed. Raises
        RunFolderError; within a transaction, its end does.
        """
        if not self._begun:
            with self.transaction():
                self.write(changes, undone=undone, done=done)
            return
        self._pending += changes
        if undone is not None:
            self._undone.append(undone)
        if done is not None:
            self._done.append(done)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is written in it, or nothing; one within another is a part of it.

        Changes are collected and made at its end, or before the next statement that reads, so that other processes
        are kept from writing for as short as can be.
        """
        if self._begun:
            yield
            return
        self._begun = True
        try:
            yield
            self._apply_pending()
            if self._connection.in_transaction:
                self.execute("COMMIT")
        except BaseException:
            self._roll_back()
            self._end(self._undone)
            raise
        self._end(self._done)

    def _apply_pending(self) -> None:
        changes, self._pending = self._pending, []
        if changes and not self._connection.in_transaction:
            self.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in changes:
                self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _roll_back(self) -> None:
        self._pending = []
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _end(self, calls: list[Callable[[], None]]) -> None:
        self._undone, self._done = [], []
        self._begun = False
        for call in calls:
            call()

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        if self._process == os.getpid():
            self._connection.close()
            Database._open.discard(self)

    def _explained(self, error: sqlite3.Error) -> RunFolderError:
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return damaged(self.where)
            case sqlite3.SQLITE_CONSTRAINT:
                return written_twice(self.where)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return RunFolderError(
                    "it is in use by another process", where=self.where, remedy="end the other run in this folder"
                )
        return RunFolderError(f"cannot write ({error})", where=self.where, remedy=_GO_ON)


def damaged(where: str) -> RunFolderError:
    """The error for a file in which something else stands than what was written."""
    return RunFolderError("the file is damaged", where=where, remedy="bring back a copy of it, or start a new run")


def written_twice(where: str) -> RunFolderError:
    """The error for something that is there already though this process did not write it."""
    return RunFolderError("another process wrote the same", where=where, remedy="end the other run in this folder")


def unwritable(error: OSError, path: Path) -> RunFolderError:
    """The error for a file that cannot be written."""
    return RunFolderError(f"cannot write ({error.strerror or error})", where=str(path), remedy=_GO_ON)


def _create_private(path: Path) -> None:
    """An empty file that nobody else may read, unless it is there; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unwritable(error, path) from error
