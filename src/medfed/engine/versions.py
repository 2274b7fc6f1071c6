"""The versions of a site's memory, as far as a process holds them: numbers, digests and names of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from medfed.core.errors import MemoryLost


class Kept(NamedTuple):
    """Which version kept a message, the SHA-256 of its encoding, and the file it is in (empty: the database)."""

    version: int
    digest: bytes
    file: str


class Version(NamedTuple):
    """One handled request: the digest of what was asked, what the step kept, by kind, and the reply's file, if any.

    requests, released_bytes: the run's counters after it, on which the policy's limits rest.
    """

    base: int
    digest: str
    requests: int
    released_bytes: int
    kept: dict[str, Kept]
    file: str = ""

    @property
    def files(self) -> set[str]:
        """The files of the reply and of what was kept."""
        return {self.file, *(kept.file for kept in self.kept.values())} - {""}


@dataclass(slots=True)
class Versions:
    """All versions up to ``settled``, folded into one, and those after it, in order."""

    settled: int
    folded: Version
    unsettled: dict[int, Version]

    @property
    def newest(self) -> int:
        """The number of the newest version."""
        return next(reversed(self.unsettled), self.settled)

    @property
    def last(self) -> Version:
        """The newest version."""
        return self.unsettled.get(self.newest, self.folded)

    @property
    def files(self) -> set[str]:
        """All files that count."""
        return self.folded.files.union(*(version.files for version in self.unsettled.values()))

    def chain(self, number: int) -> list[int]:
        """The versions from ``number`` back to the settled one, which is left out."""
        found = []
        while number in self.unsettled:
            found.append(number)
            number = self.unsettled[number].base
        return found

    def kept(self, number: int) -> dict[str, Kept]:
        """What was kept as of a version. Raises MemoryLost where it is not held, or folded into a later one."""
        chain = self.chain(number)
        if (self.unsettled[chain[-1]].base if chain else number) != self.settled:
            raise MemoryLost(
                f"the request builds on version {number} of the site's memory, which the site does not hold",
                remedy="resume the run from its newest checkpoint, or start a new run",
            )
        kept = dict(self.folded.kept)
        for each in reversed(chain):
            kept.update(self.unsettled[each].kept)
        return kept

    def settle(self, number: int) -> tuple[list[tuple[int, str]], list[tuple[str, Kept]]]:
        """Fold all versions up to one that is not settled.

        Returns what no longer counts: number and file of each reply, and messages that a later one replaced, by kind.
        """
        top, kept = self.unsettled[number], self.kept(number)
        folded = [(n, self.unsettled[n]) for n in reversed(self.chain(number))]
        places = [place for each in (self.folded, *(v for _, v in folded)) for place in each.kept.items()]
        self.settled = number
        self.folded = Version(top.base, top.digest, top.requests, top.released_bytes, kept)
        self.unsettled = {n: version for n, version in self.unsettled.items() if n > number}
        superseded = [(kind, place) for kind, place in places if place is not kept[kind]]
        return [(n, version.file) for n, version in folded], superseded

    def add(self, number: int, version: Version) -> None:
        """Add the newest version; those that it does not build on are abandoned."""
        chain = self.chain(version.base)
        self.unsettled = {n: self.unsettled[n] for n in reversed(chain)} | {number: version}


_MOST_SPARE = 8
"""Spare rows of replies that wait to be written over; more are deleted."""


@dataclass(slots=True)
class Spare:
    """Rows that no longer count, to be written over: that moves less about in the store than to delete and to add.

    replies: the number of each reply's version, oldest first. kept: kind and version of messages.
    """

    replies: list[int] = field(default_factory=list)
    kept: list[tuple[str, int]] = field(default_factory=list)

    def reply(self) -> int | None:
        """Take the row of a reply."""
        return self.replies.pop(0) if self.replies else None

    def message(self, kind: str) -> int | None:
        """Take the row of a message of that kind."""
        for index, (spare, version) in enumerate(self.kept):
            if spare == kind:
                del self.kept[index]
                return version
        return None

    def surplus(self) -> list[int]:
        """Take the rows of replies that are too many."""
        count = max(len(self.replies) - _MOST_SPARE, 0)
        taken, self.replies = self.replies[:count], self.replies[count:]
        return taken
