"""``fed.sum`` by secure aggregation: five questions to each site, of which the algorithm sees the total alone."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from medfed.core.codec import fingerprint
from medfed.core.errors import CodecError, QuorumLost, Refused
from medfed.core.messages import Message
from medfed.core.steps import Release, Step
from medfed.core.wire import Failure
from medfed.privacy.agreement import Verifies, is_key
from medfed.privacy.graph import least_sites
from medfed.privacy.ring import Encoder
from medfed.privacy.secagg.coordinator import Unmasking
from medfed.privacy.secagg.messages import (
    Advertised,
    Boxes,
    Confirmations,
    Confirmed,
    Contribution,
    Masked,
    Opening,
    Revealed,
    Survivors,
    question_of,
    session_of,
    survivors_signed,
)

if TYPE_CHECKING:
    from medfed.engine.federation import Conversation

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
A = TypeVar("A", bound=Message)

Failures = list[tuple[str, Failure]]


@dataclass(frozen=True)
class SecureSums:
    """How totals are formed under secure aggregation.

    parties: the number of the task's sites; identities: the keys of those that take part, by which false signatures are
    told before other sites refuse them; largest: the task's bound on updates, if any.
    """

    parties: int
    identities: Mapping[str, Verifies]
    largest: float | None

    def total(self, conversation: Conversation, step: Step[M, R], messages: Mapping[str, M], failures: Failures) -> R:
        """The total over the sites whose contributions arrived; the others are added to ``failures``.

        Raises QuorumLost where fewer are left than the protocol takes, and TypeError where sites are asked unlike
        things: their answers could be told apart.
        """
        message = next(iter(messages.values()))
        if len({fingerprint(each).sha256 for each in messages.values()}) > 1:
            raise TypeError(f"{step.name}: a secure sum asks all sites the same")
        nonce = secrets.token_bytes(32)
        opening = Opening(nonce, question_of(step.name, message), len(messages))
        session = session_of(conversation.task, conversation.run, opening)
        sum_ = Unmasking(session, nonce, len(messages))
        talk = _Talk(conversation, failures)

        advertised = {}
        for site, each in talk.ask("secagg.open", Advertised, dict.fromkeys(messages, opening)):
            if not (is_key(each.box_key) and is_key(each.mask_key)):
                talk.fail(site, "secagg.open", "it shows a key that is none")
            elif talk.signed(site, "secagg.open", self.identities[site], each.signature, each.signed(session, site)):
                advertised[site] = each
        advertised = _as_before(advertised, least_sites(len(messages)))
        keys = self._enough(step, failures, lambda: sum_.key_list(advertised))
        for site, boxes in talk.ask("secagg.share", Boxes, dict.fromkeys(keys.sites, keys)):
            talk.check(site, "secagg.share", lambda site=site, boxes=boxes: sum_.take_boxes(site, boxes))
        senders = self._enough(step, failures, lambda: sum_.senders)

        encoder = Encoder(step.reply, self.parties, self.largest)
        contributions = {site: Contribution(nonce, senders, sum_.boxes_for(site), message) for site in senders}
        for site, masked in talk.ask(step.name, Masked, contributions):
            talk.check(site, step.name, lambda site=site, masked=masked: sum_.add(site, masked, encoder))
            del masked
        survivors = self._enough(step, failures, sum_.survivors)
        contributed = set(survivors)
        missing = set(messages) - contributed - {site for site, _ in failures}
        failures += [(site, conversation.odd(site, step.name)) for site in sorted(missing)]

        after: Failures = []
        talk = _Talk(conversation, after)
        confirmed, signed = {}, survivors_signed(sum_.roster, survivors)
        for site, mark in talk.ask("secagg.confirm", Confirmed, dict.fromkeys(survivors, Survivors(nonce, survivors))):
            if talk.signed(site, "secagg.confirm", self.identities[site], mark.signature, signed):
                confirmed[site] = mark.signature
        signers = tuple(sorted(confirmed))
        told = Confirmations(nonce, signers, tuple(confirmed[site] for site in signers))
        revealed = dict(talk.ask("secagg.reveal", Revealed, dict.fromkeys(signers, told)))
        return cast(R, self._enough(step, [*failures, *after], lambda: sum_.total(revealed, encoder)))

    @staticmethod
    def _enough(step: Step[Any, Any], failures: Failures, found: Any) -> Any:
        """What a phase gives; where sites are too few, the error says why each is away."""
        try:
            return found()
        except QuorumLost as lost:
            told = "; ".join(f"{site}: {failure.sentence} ({failure.step})" for site, failure in sorted(failures))
            cause = f"{step.name}: {lost.cause}" + (f" ({told})" if told else "")
            codes = {failure.code for _, failure in failures}
            if codes == {Refused.code}:
                raise Refused(cause, remedy=lost.remedy) from lost
            raise QuorumLost(cause, remedy=lost.remedy) from lost


@dataclass(frozen=True)
class _Talk:
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

    def check(self, site: str, name: str, take: Any) -> None:
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


def _as_before(advertised: dict[str, Advertised], least: int) -> dict[str, Advertised]:
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
    raise TypeError("questions of the protocol are answered by the site's masking")
