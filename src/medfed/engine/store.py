"""A store of a run: the memories and the frozen cohorts of some of its sites, in one database file.

Replies and kept messages from 256 KiB on are files in a folder beside it, ``<store>-large``. A simulated run spreads
its sites over a few stores: a process that finds a database changed by another has to read its pages anew.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from medfed.engine import memory
from medfed.engine.database import Database
from medfed.engine.kept import KeptMessages
from medfed.engine.large import LargeFiles
from medfed.engine.memory import SiteMemory

_SCHEMA = f"""{memory.SCHEMA};
CREATE TABLE cohort (site TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE formed (site TEXT, question BLOB, sites TEXT NOT NULL, PRIMARY KEY (site, question)) WITHOUT ROWID"""

STORES = 60
"""The most stores of a run, and so the most workers: each store's sites live in one process."""


def store_path(run_folder: Path, block: int) -> Path:
    """The store of a block's sites."""
    return run_folder / "sites" / "memory" / str(block % STORES)


def store_paths(run_folder: Path) -> list[Path]:
    """The stores that a run has."""
    paths = (store_path(run_folder, block) for block in range(STORES))
    return [path for path in paths if path.exists()]


@dataclass(frozen=True)
class StoredSums:
    """Over which sites each question was summed (implements :class:`medfed.engine.hiding.FormedSums`)."""

    database: Database
    site: str

    def formed(self, question: bytes) -> tuple[str, ...]:
        """The sites; empty where it was not. Raises RunFolderError."""
        found = self.database.execute("SELECT sites FROM formed WHERE site = ? AND question = ?", (self.site, question))
        return tuple(json.loads(found[0][0])) if found else ()

    def form(self, question: bytes, sites: tuple[str, ...]) -> None:
        """Keep the sites of a question. Raises RunFolderError."""
        self.database.write([("INSERT INTO formed VALUES (?, ?, ?)", (self.site, question, json.dumps(sites)))])


class RunStore:
    """What many simulated sites, or one site of a deployment, keep of a run.

    Only the owner may read the file. Processes that work side by side each open it for themselves, after they were
    forked from one that had it closed, and each handles other sites.
    """

    def __init__(self, database: Database, files: LargeFiles) -> None:
        self._database = database
        self._files = files
        self._messages = KeptMessages()
        self._sites: dict[str, SiteMemory] = {}

    @classmethod
    def open(cls, path: Path | None, *, durable: bool = False, beside: int = 0) -> RunStore:
        """The store in that file, begun where there is none; None: in this process alone.

        durable: what was recorded survives a power cut, not only a kill. beside: the others that this process has
        open, which share the memory for pages. Raises RunFolderError where the file cannot be opened or written, or is
        damaged.
        """
        database = Database(path, _SCHEMA, durable=durable, beside=beside)
        large = database.path and database.path.with_name(f"{database.path.name}-large")
        return cls(database, LargeFiles(large, durable=durable))

    def site(self, name: str) -> SiteMemory:
        """The memory of a site, the same object at every call."""
        if name not in self._sites:
            self._sites[name] = SiteMemory(self._database, self._files, self._messages, name)
        return self._sites[name]

    def transaction(self) -> AbstractContextManager[None]:
        """Commit several records at once, or none of them; without it each is committed by itself.

        No reply may leave before it ends. Other processes cannot write meanwhile: nothing slow belongs into it.
        """
        return self._database.transaction()

    def cohort(self, site: str) -> bytes | None:
        """The keyed digest of a site's rows when the run began, or None."""
        rows = self._database.execute("SELECT digest FROM cohort WHERE site = ?", (site,))
        return rows[0][0] if rows else None

    def freeze_cohort(self, site: str, digest: bytes) -> None:
        """Keep the keyed digest of a site's rows."""
        self._database.write([("INSERT INTO cohort VALUES (?, ?)", (site, digest))])

    def sums(self, site: str) -> StoredSums:
        """What a site keeps of its secure sums."""
        return StoredSums(self._database, site)

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        self._database.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
