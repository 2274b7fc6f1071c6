"""How the coordinator talks with sites in a sum whose parts are hidden: a protocol's questions, one call each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from medfed.core.codec import fingerprint
from medfed.core.errors import CodecError, QuorumLost, Refused
from medfed.core.messages import Message
from medfed.core.steps import Release, Step
from medfed.core.wire import Failure
from medfed.privacy.agreement import Verifies

if TYPE_CHECKING:
    from medfed.engine.federation import Conversation

M = TypeVar("M", bound=Message)
A = TypeVar("A", bound=Message)
T = TypeVar("T")

Failures = list[tuple[str, Failure]]


class Opened(Protocol):
    """A site's first answer in a sum. formed: the sites over which the question was summed before, if it was."""

    @property
    def formed(self) -> tuple[str, ...]:
        """The sites; empty where it was not."""
        ...


O_ = TypeVar("O_", bound=Opened)


def asked_alike(step: Step[M, Any], messages: Mapping[str, M]) -> M:
    """The message to all sites. Raises TypeError where they are asked unlike things: answers could be told apart."""
    if len({fingerprint(each).sha256 for each in messages.values()}) > 1:
        raise TypeError(f"{step.name}: a secure sum asks all sites the same")
    return next(iter(messages.values()))


def enough(step: Step[Any, Any], failures: Failures, found: Callable[[], T], after: Failures | None = None) -> T:
    """What a phase gives; where sites are too few, the error says why each is away. after: those that left later."""
    try:
        return found()
    except QuorumLost as lost:
        away = [*failures, *(after or ())]
        told = "; ".join(f"{site}: {failure.sentence} ({failure.step})" for site, failure in sorted(away))
        cause = f"{step.name}: {lost.cause}" + (f" ({told})" if told else "")
        codes = {failure.code for _, failure in away}
        if codes == {Refused.code}:
            raise Refused(cause, remedy=lost.remedy) from lost
        raise QuorumLost(cause, remedy=lost.remedy) from lost


@dataclass(frozen=True)
class Talk:
    """Asks sites the questions of the protocol, each by a call of its own."""

    conversation: Conversation
    failures: Failures

    def ask(self, name: str, reply: type[A], messages: Mapping[str, Message]) -> Iterator[tuple[str, A]]:
        """Each site's answer as it comes; a site that gives none has failed."""
        asked: Step[Message, A] = Step(name, _never, Message, reply, Release.SUM, None)
        for site, body in self.conversation.exchange(asked, messages):
            if isinstance(body, Failure):
                self.failures.append((site, body))
            else:
                yield site, body
            del body

    def check(self, site: str, name: str, take: Callable[[], None]) -> None:
        """Let a site fail alone whose answer does not fit."""
        try:
            take()
        except CodecError as error:
            self.fail(site, name, error.cause)

    def signed(self, site: str, name: str, identity: Verifies, signature: bytes, message: bytes) -> bool:
        """Whether a site signed what it says; if not, it has failed, alone."""
        if identity.verifies(signature, message):
            return True
        self.fail(site, name, "its signature is false")
        return False

    def fail(self, site: str, name: str, cause: str) -> None:
        """Count a site as one that did not answer as asked."""
        failure = Failure(CodecError.code, cause, name)
        self.failures.append((site, self.conversation.failed(site, failure)))


def as_before(advertised: dict[str, O_], least: int) -> dict[str, O_]:
    """The sites to go on with: where the same was summed before, those of then, so that the total is the same.

    A few that say so, whom the others can do without, are left out: they would refuse, or want all others to.
    """
    claims = Counter(keys.formed for keys in advertised.values() if keys.formed)
    if not claims:
        return advertised
    free = {site: keys for site, keys in advertised.items() if not keys.formed}
    ((sites, claimed),) = claims.most_common(1)
    if claimed < least <= len(free):
        return free
    return {site: keys for site, keys in advertised.items() if site in sites and keys.formed in ((), sites)}


def _never(_site: Any, _message: Any) -> Any:
    raise TypeError("questions of the protocol are answered by the site's part in hidden sums")
