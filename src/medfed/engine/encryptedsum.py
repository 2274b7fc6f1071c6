"""``fed.sum`` by homomorphic encryption: five questions, of which two go to one site alone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from medfed.core.errors import QuorumLost
from medfed.core.messages import Message, add
from medfed.core.steps import Step
from medfed.engine.spool import Spool
from medfed.engine.talk import Failures, Talk, as_before, asked_alike, enough
from medfed.privacy.agreement import Verifies, is_key
from medfed.privacy.graph import least_sites
from medfed.privacy.he.coordinator import EncryptedSum
from medfed.privacy.he.messages import BoxKey, Decryption, Encrypted, SealedKeys, contribution_signed
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.messages import Confirmed, Opening, question_of, session_of

if TYPE_CHECKING:
    from medfed.engine.federation import Conversation

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class EncryptedSums:
    """How totals are formed under encryption. parties, identities, largest: as
    :class:`medfed.engine.securesum.SecureSums` has them."""

    parties: int
    identities: Mapping[str, Verifies]
    largest: float | None

    def total(self, conversation: Conversation, step: Step[M, R], messages: Mapping[str, M], failures: Failures) -> R:
        """The total over the sites whose contributions arrived; the others are added to ``failures``.

        Raises QuorumLost where fewer are left than the protocol takes, or none of them decrypts the total, and
        TypeError where sites are asked unlike things.
        """
        message = asked_alike(step, messages)
        opening = Opening(secrets.token_bytes(32), question_of(step.name, message), len(messages))
        session = session_of(conversation.task, conversation.run, opening)
        sum_ = EncryptedSum(session, opening.nonce, len(messages))
        talk = Talk(conversation, failures)
        keys = as_before(self._opened(talk, session, dict.fromkeys(messages, opening)), least_sites(len(messages)))
        self._deal(talk, step, sum_, keys)

        encoder = Encoder(step.reply, self.parties, self.largest)
        with Spool() as spool:
            questions = {site: sum_.question(site, message) for site in sum_.roster.sites}
            for site, part in talk.ask(step.name, Encrypted, questions):
                digest = part.digest()
                signed = contribution_signed(sum_.digest, site, digest, part.tag)
                if talk.signed(site, step.name, self.identities[site], part.signature, signed):
                    talk.check(site, step.name, partial(sum_.take, site, spool.kept(part), digest, encoder))
                del part
            statements = enough(step, failures, sum_.statements)
            missing = set(messages) - set(statements.sites) - {site for site, _ in failures}
            failures += [(site, conversation.odd(site, step.name)) for site in sorted(missing)]

            after: Failures = []
            talk = Talk(conversation, after)
            agreed, signed = {}, statements.agreed(sum_.digest)
            for site, mark in talk.ask("he.agree", Confirmed, dict.fromkeys(statements.sites, statements)):
                if talk.signed(site, "he.agree", self.identities[site], mark.signature, signed):
                    agreed[site] = mark.signature
            enough(step, failures, lambda: sum_.enough(len(agreed)), after)
            into = spool.empty(sum_.shape)
            sum_.add(into)
            signers = tuple(sorted(agreed))
            question = Decryption(opening.nonce, signers, tuple(agreed[site] for site in signers), into)
            found = enough(step, failures, lambda: self._decrypted(talk, step, question, sum_.layout), after)
        if (name := encoder.beyond(found, len(statements.sites))) is not None:
            raise QuorumLost(
                f"the total of {name!r} is larger than all sites' contributions can be: one of them broke its bound",
                remedy="leave out sites one by one to find which",
            )
        return found

    def _opened(self, talk: Talk, session: bytes, questions: Mapping[str, Opening]) -> dict[str, BoxKey]:
        """The sites' keys, of those that signed them."""
        keys = {}
        for site, each in talk.ask("he.open", BoxKey, questions):
            if not is_key(each.box_key):
                talk.fail(site, "he.open", "it shows a key that is none")
            elif talk.signed(site, "he.open", self.identities[site], each.signature, each.signed(session, site)):
                keys[site] = each
        return keys

    def _deal(self, talk: Talk, step: Step[M, R], sum_: EncryptedSum, keys: dict[str, BoxKey]) -> None:
        """Have the first site make the secret key; one that fails is left out, and the next one is asked."""
        while not sum_.dealer:
            roster = enough(step, talk.failures, lambda: sum_.roster_of(keys))
            dealer = roster.sites[0]
            for site, sealed in talk.ask("he.deal", SealedKeys, {dealer: roster}):
                talk.check(site, "he.deal", partial(sum_.take_keys, site, sealed))
            del keys[dealer]

    def _decrypted(self, talk: Talk, step: Step[M, R], question: Decryption, layout: Layout) -> R:
        """The total, from the first of the sites that gives one. Raises QuorumLost where none does."""
        for site in question.sites:
            for _, total in talk.ask("he.decrypt", step.reply, {site: question}):
                if Layout.of(total).same_as(layout):
                    return add(None, total)  # whose arrays are its own and can be written
                talk.fail(site, "he.decrypt", "the total that it gives has another layout than the contributions")
        raise QuorumLost("no site decrypted the total", remedy="mend the sites and go on with: medfed run --resume DIR")
