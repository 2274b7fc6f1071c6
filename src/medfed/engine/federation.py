"""The coordinator's two verbs over an engine: who is asked, what came back, and whether it is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from medfed.core.errors import CodecError, DataError, MedFedError, QuorumLost, Refused
from medfed.core.messages import Message, shapes_of
from medfed.core.protocols import Engine
from medfed.core.rng import generator
from medfed.core.steps import Release, Step
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.compression.compressed import Compressed, expanded, longest
from medfed.engine.fold import OrderedFold
from medfed.engine.talk import Failures
from medfed.spec.task import FederationSpec

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Absence(Message, wire="run.absence"):
    """A site that did not answer a request as asked; code and sentence are its own, or say that it was silent."""

    round: int
    site: str
    step: str
    code: str
    sentence: str


@dataclass
class Conversation:
    """Where the coordinator stands with every site: round, call, and the version of each site's memory.

    versions: as of each site's last reply. settled: as of the last checkpoint. Both are the coordinator's to keep;
    :meth:`begin_round` restores them from a state, so that a resumed run asks exactly what it had asked.
    """

    engine: Engine
    run: str
    task: str
    round: int = 0
    call: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)
    _before: dict[str, int] = field(default_factory=dict)

    def begin_round(self, number: int, versions: Mapping[str, int]) -> None:
        """Go on from a checkpointed state in which the sites' memories had these versions."""
        self.round, self.call = number, 0
        self.versions, self.settled = dict(versions), dict(versions)
        self.absences.clear()

    def exchange(self, step: Step[M, R], messages: Mapping[str, M]) -> Iterator[tuple[str, R | Failure]]:
        """Send one call; yield each site's reply or failure. A silent site is yielded last, as a failure."""
        call, self.call = self.call, self.call + 1
        self._before = dict(self.versions)
        requests = [
            Request(
                self.run,
                self.task,
                site,
                self.round,
                call,
                self.versions.get(site, 0),
                self.settled.get(site, 0),
                step.name,
                message,
            )
            for site, message in sorted(messages.items())
        ]
        silent = {request.site: request.digest() for request in requests}
        most = {site: longest(message) for site, message in messages.items()}
        for reply in self.engine.exchange(requests):
            if silent.get(reply.site) == reply.request:
                del silent[reply.site]
                opened: R | Failure = self._opened(reply, step, most[reply.site])
                yield reply.site, opened
                del opened
            del reply  # so that memory never holds this one and the next
        for site in silent:
            yield site, self.failed(site, Failure("silent", "no reply before the deadline", step.name))

    def _opened(self, reply: Reply, step: Step[M, R], most: int) -> R | Failure:
        """A reply's body; updates that came compressed, of ``most`` elements at most, are expanded."""
        body = reply.body
        if isinstance(body, Failure):
            return self.failed(reply.site, body)
        if isinstance(body, Compressed) and step.releases is Release.SUM:
            try:
                body = expanded(body, step.reply, most)
            except CodecError as error:
                return self.failed(reply.site, Failure(error.code, error.cause, step.name))
        if not isinstance(body, step.reply):
            return self.failed(reply.site, Failure(CodecError.code, "another message came than asked", step.name))
        self.versions[reply.site] = reply.version
        return body

    def odd(self, site: str, step: str) -> Failure:
        """The failure of a site whose reply does not add to those of the others."""
        sentence = "its reply has other shapes than those of most sites: its data or its software differ"
        return self.failed(site, Failure(CodecError.code, sentence, step))

    def ask_again(self) -> None:
        """Let the next exchange be the last one once more: sites give the replies that they recorded."""
        self.call -= 1
        self.versions = self._before

    def failed(self, site: str, failure: Failure) -> Failure:
        """Count a site as one that did not answer as asked; the failure."""
        self.absences.append(Absence(self.round, site, failure.step, failure.code, failure.sentence))
        return failure


class HiddenSums(Protocol):
    """Forms totals whose parts the coordinator does not see."""

    def total(self, conversation: Conversation, step: Step[M, R], messages: Mapping[str, M], failures: Failures) -> R:
        """The total over the sites whose contributions arrived; the others are added to ``failures``.

        Raises QuorumLost, or Refused where all others refused, where too few are left.
        """
        ...


@dataclass(frozen=True)
class SiteFederation:
    """The federation of some of a conversation's sites (implements ``core.protocols.Federation``).

    secure: how totals are formed where the task hides their parts. totals_only: then, and where sums get noise, only
    totals and names leave the sites, so that what asks for one site's own figures finds that all withhold them.
    """

    conversation: Conversation
    sites: tuple[str, ...]
    settings: FederationSpec
    seed: int
    secure: HiddenSums | None = None
    totals_only: bool = False

    @property
    def round(self) -> int:
        """The round in progress."""
        return self.conversation.round

    def restricted(self, sites: Sequence[str]) -> SiteFederation:
        """The federation of fewer sites."""
        return replace(self, sites=tuple(sorted(sites)))

    def cohort(self) -> tuple[str, ...]:
        """The round's sites, drawn without replacement by (seed, round); sorted."""
        size = share(self.settings.cohort, len(self.sites))
        if size == len(self.sites):
            return self.sites
        drawn = generator(self.seed, "cohort", self.round).choice(len(self.sites), size, replace=False)
        return tuple(self.sites[i] for i in sorted(drawn))

    def sum(self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None) -> R:
        """The total of the sites' replies. Raises QuorumLost, or Refused where sites' policies were the cause.

        Where replies differ in the shapes of their arrays, which cannot be added, the sites whose shapes are not those
        of most have failed.
        """
        _demand(step, summed=True)
        messages = self._addressed(message, sites)
        failures: list[tuple[str, Failure]] = []
        if self.secure is not None:
            formed = self.secure.total(self.conversation, step, messages, failures)
            self._check_quorum(step, len(messages), failures)
            return formed
        total, shapes = self._folded(step, messages, failures)
        if len(shapes) > 1:
            most = _most(shapes)
            odd = [site for sites in shapes.values() if sites is not most for site in sites]
            failures += [(site, self.conversation.odd(site, step.name)) for site in odd]
            if not most:
                total = None
            elif most is not next(iter(shapes.values())):
                self.conversation.ask_again()
                total, _ = self._folded(step, {site: messages[site] for site in most}, failures)
        self._check_quorum(step, len(messages), failures)
        if total is None:
            raise _lost(step, failures)
        return total

    def _folded(
        self, step: Step[M, R], messages: Mapping[str, M], failures: list[tuple[str, Failure]]
    ) -> tuple[R | None, dict[Any, list[str]]]:
        """The total of the replies that have the first one's shapes; and the sites of each kind of shapes, in order."""
        shapes: dict[Any, list[str]] = {}
        with OrderedFold(messages, step.reply) as fold:
            for site, body in self.conversation.exchange(step, messages):
                if isinstance(body, Failure):
                    failures.append((site, body))
                    fold.absent(site)
                else:
                    shapes.setdefault(shape := shapes_of(body), []).append(site)
                    if shape == next(iter(shapes)):
                        fold.contribute(site, body)
                    else:
                        fold.absent(site)
                del body  # so that memory never holds this one and the next
            return fold.finish(), shapes

    def ask(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> dict[str, R]:
        """Each site's reply by name, sorted; sites whose policy refuses are absent and do not count for quorum."""
        return dict(sorted(self.stream(step, message, sites=sites)))

    def stream(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> Iterator[tuple[str, R]]:
        """As :meth:`ask`, in order of arrival; the quorum is checked at the end."""
        _demand(step, summed=False)
        if self.totals_only and step.releases is Release.SITE:
            return
        messages, failures, refused = self._addressed(message, sites), [], 0
        for site, body in self.conversation.exchange(step, messages):
            if not isinstance(body, Failure):
                yield site, body
            elif body.code == Refused.code:
                refused += 1
            else:
                failures.append((site, body))
        self._check_quorum(step, len(messages) - refused, failures)

    def _addressed(self, message: M | Mapping[str, M], sites: Sequence[str] | None) -> dict[str, M]:
        if isinstance(message, Mapping):
            return {site: message[site] for site in (self.sites if sites is None else sites)}
        return dict.fromkeys(self.sites if sites is None else sites, message)

    def _check_quorum(self, step: Step[Any, Any], asked: int, failures: list[tuple[str, Failure]]) -> None:
        if asked - len(failures) < share(self.settings.quorum, asked):
            raise _lost(step, failures)


def _most(shapes: dict[Any, list[str]]) -> list[str]:
    """The sites of the shapes that most have; none where two kinds are equally many."""
    by_number = sorted(shapes.values(), key=len, reverse=True)
    return by_number[0] if len(by_number[0]) > len(by_number[1]) else []


def _demand(step: Step[Any, Any], *, summed: bool) -> None:
    """Raise TypeError where an algorithm asks for single replies of a summed step, or sums what does not add."""
    if (step.releases is Release.SUM) != summed:
        raise TypeError(f"{step.name} releases {step.releases}: {'ask' if summed else 'sum'} is the verb for it")


def share(part: float, whole: int) -> int:
    """A number of sites: a count as it is but never above ``whole``, or a fraction of it, rounded up."""
    return min(part, whole) if isinstance(part, int) else math.ceil(part * whole - 1e-9)


def _lost(step: Step[Any, Any], failures: list[tuple[str, Failure]]) -> MedFedError:
    """The error that names every site which did not answer, by what was the cause at all of them.

    Policies alone: Refused. The data alone: DataError, since going on with other rows would be another run.
    """
    told = "; ".join(f"{site}: {failure.sentence} ({failure.step})" for site, failure in sorted(failures))
    codes = {failure.code for _, failure in failures}
    if codes == {Refused.code}:
        return Refused(told, remedy="or lower federation.quorum, to go on without these sites")
    if codes == {DataError.code}:
        return DataError(told, remedy="mend the data or the task, and start a new run")
    return QuorumLost(
        f"too few sites answered: {told or step.name}",
        remedy="mend the sites and go on with: medfed run --resume DIR; or lower federation.quorum",
    )
