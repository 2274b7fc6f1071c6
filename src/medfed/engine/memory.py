"""A site's memory: what it keeps between requests, so that no lost reply and no resumed coordinator corrupts it.

Every request handled makes a version: the reply, and the messages kept. A request names the version it builds on
(``base``: the one that the last reply told the coordinator) and the one that the coordinator has checkpointed
(``settled``). Three rules follow:

- A repeated request, the same bits for the same round and call, gets the stored reply: nothing is computed twice.
- A request whose base is older than the newest version means that later replies were lost, or that the coordinator
  resumed: the abandoned versions no longer count.
- Versions up to ``settled`` are folded into one and their replies forgotten. A request that builds on anything
  older is refused, for it would count work twice.

With a folder, a version is one file, written whole before its reply leaves.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medfed.core.codec import decode, encode
from medfed.core.errors import MemoryLost
from medfed.core.files import write_atomically
from medfed.core.messages import Message
from medfed.core.wire import Reply, Request

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, eq=False)
class Version(Message, wire="memory.version"):
    """One handled request: the digest of what was asked, the reply, and the messages kept by the step.

    requests, released_bytes: the run's counters after it, on which the policy's limits rest.
    """

    number: int
    base: int
    digest: str
    reply: Reply
    kept: tuple[Message, ...]
    requests: int
    released_bytes: int


@dataclass(frozen=True, eq=False)
class Settled(Message, wire="memory.settled"):
    """All versions up to ``number``, folded: the last message of each type, and the run's counters."""

    number: int
    kept: tuple[Message, ...]
    requests: int
    released_bytes: int


class SiteMemory:
    """The memory of one run at one site; ``folder`` None keeps it in the process alone."""

    def __init__(self, folder: Path | None, *, durable: bool = False) -> None:
        self._folder = folder
        self._durable = durable
        self._settled = Settled(0, (), 0, 0)
        self._versions: dict[int, Version] = {}
        self._failed = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._load(folder)
        self._newest = max([self._settled.number, *self._versions])

    @property
    def requests(self) -> int:
        """The requests of this run: those handled, and those that failed since the process began."""
        return self._handled + self._failed

    @property
    def _handled(self) -> int:
        return max((v.requests for v in self._versions.values()), default=self._settled.requests)

    def count_failure(self) -> None:
        """Count a request that was refused or failed, so that no limit is got round by failing."""
        self._failed += 1

    @property
    def released_bytes(self) -> int:
        """The bytes released in this run."""
        return max((v.released_bytes for v in self._versions.values()), default=self._settled.released_bytes)

    def stored_reply(self, request: Request) -> Reply | None:
        """The reply already given to this very request, or None."""
        digest = request.digest()
        return next((v.reply for v in self._versions.values() if v.digest == digest), None)

    def at(self, base: int) -> dict[type[Message], Message]:
        """What was kept as of a version, by type.

        Raises MemoryLost where this site never made that version, or has already folded it into a later one.
        """
        chain: list[Version] = []
        number = base
        while number in self._versions:
            chain.append(self._versions[number])
            number = chain[-1].base
        if number != self._settled.number:
            raise MemoryLost(
                f"the request builds on version {base} of the site's memory, which the site does not hold",
                remedy="resume the run from its newest checkpoint, or start a new run",
            )
        kept = {type(message): message for message in self._settled.kept}
        for version in reversed(chain):
            kept.update((type(message), message) for message in version.kept)
        return kept

    def newest(self, kind: type[M]) -> M:
        """The message of this type as the site has it now. Raises MemoryLost where it never kept one."""
        kept = self.at(self._newest).get(kind)
        if not isinstance(kept, kind):
            raise MemoryLost(f"the site never kept a {kind.__name__}", where=str(self._folder))
        return kept

    def settle(self, number: int) -> None:
        """Fold all versions up to ``number``; the coordinator has checkpointed it."""
        if number not in self._versions:
            return
        top = self._versions[number]
        self._settled = Settled(number, tuple(self.at(number).values()), top.requests, top.released_bytes)
        self._write("settled", self._settled)
        self._forget([n for n in self._versions if n <= number])

    def record(self, request: Request, reply_body: Message, kept: tuple[Message, ...], released: int) -> Reply:
        """Store the outcome of a request as a new version, and return the reply that carries its number.

        Versions that are not among the ancestors of the request's base are abandoned.
        """
        ancestors, number = set(), request.base
        while number in self._versions:
            ancestors.add(number)
            number = self._versions[number].base
        number, digest = self._newest + 1, request.digest()
        reply = Reply(request.run, request.site, request.round, request.call, number, digest, reply_body)
        counters = self._handled + 1, self.released_bytes + released
        version = Version(number, request.base, digest, reply, kept, *counters)
        self._write(f"version-{number}", version)
        self._forget([n for n in self._versions if n not in ancestors])
        self._versions[number] = version
        self._newest = number
        return reply

    def _write(self, name: str, content: Message) -> None:
        """Write one file, for nobody but the site: what it keeps may tell of its patients."""
        if self._folder is not None:
            write_atomically(self._folder / name, encode(content), durable=self._durable, mode=0o600)

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._versions[number]
            if self._folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / f"version-{number}").unlink()

    def _load(self, folder: Path) -> None:
        settled = folder / "settled"
        if settled.exists():
            self._settled = decode(settled.read_bytes(), Settled)
        for path in folder.glob("version-*"):
            version = decode(path.read_bytes(), Version)
            if version.number > self._settled.number:
                self._versions[version.number] = version
            else:
                path.unlink()
