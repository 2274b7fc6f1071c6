"""``fed.sum`` by secure aggregation: five questions to each site, of which the algorithm sees the total alone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from medfed.core.messages import Message
from medfed.core.steps import Step
from medfed.engine.talk import Failures, Talk, as_before, asked_alike, enough
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
        message = asked_alike(step, messages)
        nonce = secrets.token_bytes(32)
        opening = Opening(nonce, question_of(step.name, message), len(messages))
        session = session_of(conversation.task, conversation.run, opening)
        sum_ = Unmasking(session, nonce, len(messages))
        talk = Talk(conversation, failures)

        advertised = {}
        for site, each in talk.ask("secagg.open", Advertised, dict.fromkeys(messages, opening)):
            if not (is_key(each.box_key) and is_key(each.mask_key)):
                talk.fail(site, "secagg.open", "it shows a key that is none")
            elif talk.signed(site, "secagg.open", self.identities[site], each.signature, each.signed(session, site)):
                advertised[site] = each
        advertised = as_before(advertised, least_sites(len(messages)))
        keys = enough(step, failures, lambda: sum_.key_list(advertised))
        for site, boxes in talk.ask("secagg.share", Boxes, dict.fromkeys(keys.sites, keys)):
            talk.check(site, "secagg.share", partial(sum_.take_boxes, site, boxes))
        senders = enough(step, failures, lambda: sum_.senders)

        encoder = Encoder(step.reply, self.parties, self.largest)
        contributions = {site: Contribution(nonce, senders, sum_.boxes_for(site), message) for site in senders}
        for site, masked in talk.ask(step.name, Masked, contributions):
            talk.check(site, step.name, partial(sum_.add, site, masked, encoder))
            del masked
        survivors = enough(step, failures, sum_.survivors)
        contributed = set(survivors)
        missing = set(messages) - contributed - {site for site, _ in failures}
        failures += [(site, conversation.odd(site, step.name)) for site in sorted(missing)]

        after: Failures = []
        talk = Talk(conversation, after)
        confirmed, signed = {}, survivors_signed(sum_.roster, survivors)
        for site, mark in talk.ask("secagg.confirm", Confirmed, dict.fromkeys(survivors, Survivors(nonce, survivors))):
            if talk.signed(site, "secagg.confirm", self.identities[site], mark.signature, signed):
                confirmed[site] = mark.signature
        signers = tuple(sorted(confirmed))
        told = Confirmations(nonce, signers, tuple(confirmed[site] for site in signers))
        revealed = dict(talk.ask("secagg.reveal", Revealed, dict.fromkeys(signers, told)))
        return cast(R, enough(step, failures, lambda: sum_.total(revealed, encoder), after))
