"""A site's part in the secure sums of one run: one at a time, each with keys of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from medfed.core.errors import RefusalReason, Refused
from medfed.core.messages import Message
from medfed.core.steps import Step
from medfed.privacy.agreement import Signs, Verifies
from medfed.privacy.ring import Encoder
from medfed.privacy.secagg.messages import (
    Confirmations,
    Contribution,
    KeyList,
    Masked,
    Opening,
    Survivors,
    question_of,
    session_of,
)
from medfed.privacy.secagg.site import MaskingSession

UNDER_MASKS = "secure aggregation: masked"
KEYS = "secure aggregation: keys and shares"
"""How the ledger names what leaves in a secure sum."""


class FormedSums(Protocol):
    """Over which sites each question was summed at this site's word; kept for good, and never rewound."""

    def formed(self, question: bytes) -> tuple[str, ...]:
        """The sites; empty where it was not."""
        ...

    def form(self, question: bytes, sites: tuple[str, ...]) -> None:
        """Keep the sites of a question, which is new."""
        ...


@dataclass
class Masking:
    """Secure sums at one site (see the module).

    task, run: what they belong to. identity, parties: its own key, and those of all sites of the task. asked, largest:
    the sites that the task asks in a sum at least, and its bound on updates, if any.
    """

    task: str
    run: str
    site: str
    identity: Signs
    parties: Mapping[str, Verifies]
    asked: int
    largest: float | None
    sums: FormedSums
    _session: MaskingSession | None = None
    _nonce: bytes = b""
    _question: bytes = b""
    _used: set[bytes] = field(default_factory=set)

    def answer(self, message: Opening | KeyList | Survivors | Confirmations) -> Message:
        """The answer to a question of the protocol. Raises Refused where an honest coordinator would not ask it."""
        if isinstance(message, Opening):
            return self._opened(message)
        session = self._of(message.nonce)
        match message:
            case KeyList():
                return session.share(message)
            case Survivors():
                return self._confirmed(session, message)
            case Confirmations():
                return session.reveal(message)

    def receive(self, step: str, message: Contribution) -> None:
        """Take the shares for a contribution, before it is computed. Raises Refused."""
        session = self._of(message.nonce)
        if question_of(step, message.content) != self._question:
            raise _refused("another question is asked than the one that the sum was opened for")
        session.receive(message.senders, message.boxes)

    def masked(self, step: Step[Message, Message], contribution: Message) -> Masked:
        """The contribution under masks. Raises DataError where a value is beyond its bound."""
        assert self._session is not None  # noqa: S101 - receive was called for it
        return self._session.masked(contribution, Encoder(step.reply, len(self.parties), self.largest))

    def _opened(self, message: Opening) -> Message:
        if message.nonce in self._used or len(message.nonce) != 32:
            raise _refused("a secure sum was opened with the number of an earlier one")
        if not self.asked <= message.asked <= len(self.parties):
            raise _refused("a sum of other sites than the task says is asked for")
        self._used.add(message.nonce)
        self._nonce, self._question = message.nonce, message.question
        session = session_of(self.task, self.run, message)
        self._session = MaskingSession(session, self.site, self.identity, self.parties, message.asked)
        return self._session.advertise(self.sums.formed(message.question))

    def _confirmed(self, session: MaskingSession, message: Survivors) -> Message:
        """Sign the survivors, which are those of the same question before, if it was summed before."""
        session.check_survivors(message.sites)
        formed = self.sums.formed(self._question)
        if formed and formed != message.sites:
            raise _refused(
                "this very sum was formed before over other sites, and the two would give one site's part away",
                remedy="sum it over the same sites, or start a new run",
            )
        if not formed:
            self.sums.form(self._question, message.sites)
        return session.confirm(message)

    def _of(self, nonce: bytes) -> MaskingSession:
        if self._session is None or nonce != self._nonce:
            raise _refused("this site holds no keys for that secure sum: it was started anew, or another was opened")
        return self._session


def _refused(cause: str, remedy: str = "") -> Refused:
    return Refused(cause, reason=RefusalReason.SECURE_SUM, remedy=remedy)
