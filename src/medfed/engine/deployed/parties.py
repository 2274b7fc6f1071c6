"""The sites of a deployed run as the coordinator's loop sees them: requests go out, and what comes back is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medfed.core.codec import Buffer, decode
from medfed.core.errors import CodecError, LedgerError, MedFedError, Refused
from medfed.core.messages import Message
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.deployed.carrier import Carrier
from medfed.engine.deployed.messages import EndRun, FromSite, Kept, RoundFigures, ShownHead, ToSite, Trained
from medfed.engine.deployed.plausible import brief, check_plausible
from medfed.engine.simulation import COORDINATOR
from medfed.evaluate.evaluation import FEDERATED
from medfed.govern.heads import Head
from medfed.govern.keys import VerifyKey
from medfed.govern.ledger import Ledger
from medfed.govern.views import Views


@dataclass
class DeployedParties:
    """Sites behind a carrier (implements :class:`medfed.engine.simulation.Parties`).

    allowed: raises Refused for a site that was revoked; asked before anything is sent to it and again when its answer
    comes. keys: the public key of each. views: the heads that the coordinator has seen of every site. ledger: its own.
    deadline: the seconds after which a site counts as silent. noisy: whether sites add noise to counts. history: the
    sites' heads after each round; seen: how many of them each site has answered to; held: the size of the coordinator's
    head that each site says it holds. told: the rounds as they were measured; heard: how many of them each site has
    answered to.
    """

    run: str
    task: str
    carrier: Carrier
    ledger: Ledger
    keys: Mapping[str, VerifyKey]
    views: Views
    allowed: Callable[[str], None]
    deadline: float | None
    timings: Timings
    noisy: bool = False
    fresh: list[ShownHead] = field(default_factory=list)
    history: list[ShownHead] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    own: Head | None = None
    told: list[RoundFigures] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Replies as they come; a site that is away, late, revoked, or answers garbage has failed by its own name."""
        waiting = {request.site: request for request in requests}
        refused = [self._refusal(request) for request in requests]
        for reply in [each for each in refused if each is not None]:
            del waiting[reply.site]
            yield reply
        messages = {site: self._message(site, request) for site, request in waiting.items()}
        for site, content in self._carried(messages):
            request = waiting.pop(site, None)
            if request is not None:
                yield self._reply(request, content)
            del content

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """The heads that came with the sites' answers since they were last asked for."""
        fresh, self.fresh = self.fresh, []
        self.history += fresh
        return {shown.party: shown.head for shown in fresh}

    def witness(self, head: Head, party: str) -> None:
        """Show the coordinator's head to every site with its next message."""
        self.own = head

    def close(self, status: str) -> dict[str, Head]:
        """Tell every site that was not revoked that the run is over; their last heads, of those that answer."""
        messages = {site: self._message(site, EndRun(status)) for site in self._welcome()}
        for site, content in self._carried(messages):
            with contextlib.suppress(MedFedError):
                self._opened(site, content)
        return self.sign_heads(0)

    def hand_over(self, folder: Path) -> frozenset[str]:
        """Give every site that was not revoked the trained model of a run folder; the sites that have it now."""
        shared = None if (folder / "models").is_dir() else _trained(folder)
        messages = {site: self._message(site, shared or _trained(folder / "models" / site)) for site in self._welcome()}
        kept = set()
        for site, content in self._carried(messages):
            with contextlib.suppress(MedFedError):
                if isinstance(self._opened(site, content), Kept):
                    kept.add(site)
        return frozenset(kept)

    def spent(self) -> dict[Phase, float]:
        """Nothing: a hospital's clock is its own."""
        return {}

    def detach(self) -> None:
        """Nothing is held here."""

    def _carried(self, messages: Mapping[str, ToSite]) -> Iterator[tuple[str, Buffer]]:
        carried = self.carrier.carry(messages, self.deadline)
        while True:
            with self.timings[Phase.WAIT]:
                found = next(carried, None)
            if found is None:
                return
            yield found

    def _message(self, site: str, content: Message) -> ToSite:
        heads = [shown for shown in self.history[self.seen.get(site, 0) :] if shown.party != site]
        held = self.held.get(site)
        if self.own is not None and held is not None and held < self.own.size:
            heads.append(ShownHead(COORDINATOR, self.own, held, self.ledger.consistency(held, self.own.size)))
        told = tuple(self._shared(each, site) for each in self.told[self.heard.get(site, 0) :])
        return ToSite(self.run, self.task, tuple(heads), self.views.last(site).size, content, told)

    def _shared(self, told: RoundFigures, site: str) -> RoundFigures:
        """What a site is told of a round: its own figures and those of all; of two sites each could subtract anyway."""
        if len(self.keys) <= 2:
            return told
        return RoundFigures(told.round, tuple(each for each in told.figures if each.site in (site, FEDERATED)))

    def _welcome(self) -> Iterator[str]:
        """The sites that were not revoked."""
        for site in self.keys:
            with contextlib.suppress(Refused):
                self.allowed(site)
                yield site

    def _refusal(self, request: Request) -> Reply | None:
        try:
            self.allowed(request.site)
        except Refused as refused:
            return _failed(request, refused)
        return None

    def _reply(self, request: Request, content: Buffer) -> Reply:
        try:
            reply = self._opened(request.site, content)
            if isinstance(reply, Reply) and isinstance(reply.body, Failure):
                reply = reply.body
            if isinstance(reply, Failure):
                return _failed(request, MedFedError(brief(reply.sentence)), brief(reply.code, 40))
            if not isinstance(reply, Reply) or reply.site != request.site:
                raise CodecError("it answered with another message than a reply of its own")
            check_plausible(request, reply, noisy=self.noisy)
        except MedFedError as error:
            return _failed(request, error)
        return reply

    def _opened(self, site: str, content: Buffer) -> Message:
        """What a site answered, after its head was checked. Raises Refused, CodecError, LedgerError."""
        self.allowed(site)
        answer = decode(content, FromSite)
        if answer.site != site:
            raise CodecError("it answered in another site's name")
        released = isinstance(answer.content, Reply) and not isinstance(answer.content.body, Failure)
        if answer.head is None and released:
            raise LedgerError("it answered without the head of its ledger", where=site)
        if answer.head is not None:
            shown = answer.head
            if shown.party != site:
                raise LedgerError("it showed another party's head as its own", where=site)
            since = self.views.last(site).size
            self.views.accept(site, shown.head, shown.proof, self.keys[site])
            self.fresh.append(ShownHead(site, shown.head, since, shown.proof))
            self.seen[site], self.held[site] = len(self.history), max(answer.known, 0)
            self.heard[site] = len(self.told)
        return answer.content


def _trained(place: Path) -> Trained:
    """The model in a folder: a finished run's, or that of one site where each has its own."""
    return Trained((place / "model.safetensors").read_bytes(), (place / "encoding.bin").read_bytes())


def _failed(request: Request, error: MedFedError, code: str | None = None) -> Reply:
    failure = Failure(code or error.code, error.cause, request.step)
    return Reply(request.run, request.site, request.round, request.call, request.base, request.digest(), failure)
