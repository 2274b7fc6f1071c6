"""Questions to sites and their answers by the post (implements :class:`medfed.engine.deployed.carrier.Carrier`).

A question is sent again, less and less often, until its answer comes: a site that is at work on it takes no notice, one
that has answered answers once more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from nvflare.apis.client import Client
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.fuel.f3.cellnet.fqcn import FQCN

from medfed.core.codec import Buffer, parts
from medfed.core.errors import CodecError, MedFedError
from medfed.core.wire import Request
from medfed.engine.deployed.messages import ToSite
from medfed.engine.flare.guard import collect_often
from medfed.engine.flare.letters import Letter
from medfed.engine.flare.post import Post
from medfed.engine.flare.turns import Turns
from medfed.privacy.he.messages import Encryption

_LEAST_LARGEST = 64 * 2**20
_TIMES_LARGER, _TIMES_LARGER_ENCRYPTED = 4, 24
"""An answer of more bytes than this many times what was asked is not fetched, unless it is below 64 MiB.

Encrypted, a number of 4 bytes takes 64.
"""

_LOOK_UP = 0.2
"""Seconds after which a wait looks whether the job was aborted."""

_AGAIN, _AT_MOST = 0.25, 5.0
"""Seconds until a question is sent again; twice as many the next time, and at most so many."""


class FlareCarrier:
    """The clients of one job. spool: a folder for large answers on their way. gone: sites that died, as others find."""

    def __init__(self, context: FLContext, abort: Signal, spool: Path) -> None:
        engine = context.get_engine()
        clients: list[Client] = engine.get_clients()
        self._cells = {client.name: FQCN.join([client.get_fqcn(), context.get_job_id()]) for client in clients}
        self._sites = {cell: site for site, cell in self._cells.items()}
        self._exchanges: dict[str, _Exchange] = {}
        self._turns = Turns()
        self._abort = abort
        self._spool = spool
        self._post = Post(engine.get_cell(), self._received)
        self.gone: frozenset[str] = frozenset()

    @property
    def sites(self) -> frozenset[str]:
        """The clients that the job was given to."""
        return frozenset(self._cells)

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, Buffer]]:
        """As :class:`medfed.engine.deployed.carrier.Carrier`; the messages are on their way when it returns."""
        number = secrets.token_hex(8)
        letters = {
            site: self._post.letter(number, parts(message), self._cells[site])
            for site, message in messages.items()
            if site in self._cells
        }
        largest = max((sum(map(len, parts(message))) for message in messages.values()), default=0)
        times = _TIMES_LARGER_ENCRYPTED if any(map(_asks_encrypted, messages.values())) else _TIMES_LARGER
        exchange = _Exchange(letters, deadline, max(_LEAST_LARGEST, times * largest))
        self._exchanges[number] = exchange
        self._send(exchange)
        return self._arriving(number, exchange)

    def _arriving(self, number: str, exchange: _Exchange) -> Iterator[tuple[str, Buffer]]:
        with ThreadPoolExecutor(len(exchange.letters) or 1, "medfed-fetch") as fetchers:
            try:
                while exchange.waiting:
                    if self._abort.triggered:
                        raise MedFedError("the job was aborted", remedy="the run goes on from its checkpoint")
                    exchange.waiting -= self.gone
                    if exchange.is_to_be_sent_again():
                        self._send(exchange)
                        collect_often()
                    try:
                        site, found = exchange.arrived.get(timeout=_LOOK_UP)
                    except Empty:
                        if exchange.is_late():
                            break
                        continue
                    if isinstance(found, Letter):
                        fetchers.submit(self._fetch, number, exchange, site, found)
                    elif isinstance(found, MedFedError):
                        raise found
                    elif site in exchange.waiting - self.gone:
                        exchange.waiting.remove(site)
                        yield site, found
                    del found
            finally:
                del self._exchanges[number]
                for letter in exchange.letters.values():
                    self._post.withdraw(letter)
        if any(letter.size for letter in exchange.letters.values()):
            collect_often()

    def _send(self, exchange: _Exchange) -> None:
        for site, letter in list(exchange.unanswered.items()):
            self._post.send(self._cells[site], letter)

    def _received(self, origin: str, letter: Letter) -> None:
        """Take the first answer of each site, so that none can fill the memory or keep others from being heard."""
        exchange, site = self._exchanges.get(letter.number), self._sites.get(origin, "")
        if exchange is not None and exchange.unanswered.pop(site, None) is not None:
            exchange.arrived.put((site, letter))

    def _fetch(self, number: str, exchange: _Exchange, site: str, letter: Letter) -> None:
        """Put what a site sent with what arrived; nothing, which decodes as no message, where it cannot be had."""

        def awaited() -> bool:
            return number in self._exchanges and site not in self.gone and not self._abort.triggered

        found: Buffer | MedFedError
        try:
            with self._turns.turn():
                found = self._post.opened(self._cells[site], letter, self._spool, exchange.largest, awaited)
        except CodecError:
            found = b""
        except MedFedError as error:
            found = error
        exchange.arrived.put((site, found))


class _Exchange:
    """One question to each of some sites. unanswered: letters that no answer came to; waiting: sites whose answer was
    not given on; largest: the bytes of the largest answer that is fetched."""

    def __init__(self, letters: dict[str, Letter], deadline: float | None, largest: int) -> None:
        now = time.monotonic()
        self.letters, self.unanswered, self.waiting = letters, dict(letters), set(letters)
        self.largest = largest
        self.arrived: SimpleQueue[tuple[str, Letter | Buffer | MedFedError]] = SimpleQueue()
        self._until = None if deadline is None else now + deadline
        self._pause, self._again = _AGAIN, now + _AGAIN

    def is_late(self) -> bool:
        """Whether nobody waits any longer."""
        return self._until is not None and time.monotonic() >= self._until

    def is_to_be_sent_again(self) -> bool:
        """Whether it is time to ask again; if so, the next time is later."""
        if time.monotonic() < self._again:
            return False
        self._pause = min(2 * self._pause, _AT_MOST)
        self._again = time.monotonic() + self._pause
        return True


def _asks_encrypted(message: ToSite) -> bool:
    return isinstance(message.content, Request) and isinstance(message.content.message, Encryption)
