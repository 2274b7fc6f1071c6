"""The versions of a site's memory, as far as a process holds them: numbers, digests and names of files."""

from __future__ import annotations

from dataclasses import dataclass, field

from medfed.core.errors import MemoryLost


@dataclass(frozen=True, slots=True)
class Kept:
    """Which version kept a message, the SHA-256 of its encoding, and the file it is in (empty: the database)."""

    version: int
    digest: bytes
    file: str


@dataclass(frozen=True, slots=True)
class Version:
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

    def settle(self, number: int) -> None:
        """Fold all versions up to one that is not settled."""
        top, kept = self.unsettled[number], self.kept(number)
        self.settled = number
        self.folded = Version(top.base, top.digest, top.requests, top.released_bytes, kept)
        self.unsettled = {n: version for n, version in self.unsettled.items() if n > number}

    def add(self, number: int, version: Version) -> None:
        """Add the newest version; those that it does not build on are abandoned."""
        chain = self.chain(version.base)
        self.unsettled = {n: self.unsettled[n] for n in reversed(chain)} | {number: version}


_MOST_REPLIES = 8
_MOST_BYTES = 2**17


@dataclass(slots=True)
class Outdated:
    """What was folded and stands in the store all the same: messages that a later one replaced, by kind, and replies.

    replies: of each, its file, if any, and the bytes released by the run up to it.
    """

    superseded: list[tuple[str, Kept]] = field(default_factory=list)
    replies: list[tuple[str, int]] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether it is so much that the store should forget it."""
        released = [bytes_ for _, bytes_ in self.replies]
        return len(released) >= _MOST_REPLIES or released[-1] - released[0] >= _MOST_BYTES or bool(self.files)

    @property
    def files(self) -> set[str]:
        """The files that no longer count."""
        return ({file for file, _ in self.replies} | {place.file for _, place in self.superseded}) - {""}
