"""A site's part in the secure sums of one run: one at a time, each with keys of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medfed.core.messages import Message
from medfed.core.steps import Step
from medfed.engine.hiding import Openings, refused
from medfed.privacy.agreement import Signs, Verifies
from medfed.privacy.ring import Encoder
from medfed.privacy.secagg.messages import Confirmations, Contribution, KeyList, Masked, Opening, Survivors
from medfed.privacy.secagg.site import MaskingSession


@dataclass
class Masking:
    """Secure sums at one site (implements :class:`medfed.engine.hiding.Hiding`).

    identity, parties: its own key, and those of all sites of the task. largest: the task's bound on updates, if any.
    """

    site: str
    identity: Signs
    parties: Mapping[str, Verifies]
    openings: Openings
    largest: float | None
    promise: str = "totals under masks leave this site (privacy.aggregation: secure)"
    hidden: str = "secure aggregation: masked"
    said: str = "secure aggregation: keys and shares"
    _session: MaskingSession | None = None

    def answer(self, message: Message) -> Message:
        """The answer to a question of the protocol. Raises Refused where an honest coordinator would not ask it."""
        match message:
            case Opening():
                session = self.openings.open(message)
                self._session = MaskingSession(session, self.site, self.identity, self.parties, message.asked)
                return self._session.advertise(self.openings.formed)
            case KeyList():
                return self._of(message.nonce).share(message)
            case Survivors():
                open_session = self._of(message.nonce)
                open_session.check_survivors(message.sites)
                self.openings.bind(message.sites)
                return open_session.confirm(message)
            case Confirmations():
                return self._of(message.nonce).reveal(message)
        raise refused("the task forms its totals by secure aggregation, of which this is no question")

    def receive(self, step: str, message: Message) -> None:
        """Take the shares for a contribution, before it is computed. Raises Refused."""
        if not isinstance(message, Contribution):
            raise refused("the task forms its totals by secure aggregation, of which this is no question")
        session = self._of(message.nonce)
        self.openings.check_question(step, message.content)
        session.receive(message.senders, message.boxes)

    def contribution(self, step: Step[Message, Message], body: Message) -> Masked:
        """The contribution under masks. Raises DataError where a value is beyond its bound."""
        assert self._session is not None  # noqa: S101 - receive was called for it
        return self._session.masked(body, Encoder(step.reply, len(self.parties), self.largest))

    def _of(self, nonce: bytes) -> MaskingSession:
        self.openings.check(nonce)
        assert self._session is not None  # noqa: S101 - a sum is open
        return self._session
