"""A site's part in the sums under encryption of one run: one at a time, each with a key of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medfed.core.messages import Message
from medfed.core.steps import Step
from medfed.engine.hiding import Openings, refused
from medfed.privacy.agreement import Signs, Verifies
from medfed.privacy.he.messages import Decryption, Encrypted, Encryption, Roster, Statements
from medfed.privacy.he.site import EncryptionSession
from medfed.privacy.ring import Encoder
from medfed.privacy.secagg.messages import Opening


@dataclass
class Encrypting:
    """Sums under encryption at one site (implements :class:`medfed.engine.hiding.Hiding`).

    identity, parties: its own key, and those of all sites of the task. largest: the task's bound on updates, if any.
    """

    site: str
    identity: Signs
    parties: Mapping[str, Verifies]
    openings: Openings
    largest: float | None
    promise: str = "encrypted parts and decrypted totals leave this site (privacy.aggregation: encrypted)"
    hidden: str = "homomorphic encryption: encrypted"
    said: str = "homomorphic encryption: keys and totals"
    _session: EncryptionSession | None = None
    _encoder: Encoder | None = None

    def answer(self, message: Message) -> Message:
        """The answer to a question of the protocol. Raises Refused where an honest coordinator would not ask it."""
        match message:
            case Opening():
                session = self.openings.open(message)
                self._session = EncryptionSession(session, self.site, self.identity, self.parties, message.asked)
                return self._session.advertise(self.openings.formed)
            case Roster():
                return self._of(message.nonce).deal(message)
            case Statements():
                open_session = self._of(message.nonce)
                open_session.check_statements(message)
                self.openings.bind(message.sites)
                return open_session.agree(message)
            case Decryption():
                open_session = self._of(message.nonce)
                if self._encoder is None:
                    raise refused("a total is to be decrypted to which this site did not contribute")
                return open_session.decrypt(message, self._encoder)
        raise refused("the task forms its totals by homomorphic encryption, of which this is no question")

    def receive(self, step: str, message: Message) -> None:
        """Take the key for a contribution, before it is computed. Raises Refused."""
        if not isinstance(message, Encryption):
            raise refused("the task forms its totals by homomorphic encryption, of which this is no question")
        session = self._of(message.nonce)
        self.openings.check_question(step, message.content)
        session.receive(message)

    def contribution(self, step: Step[Message, Message], body: Message) -> Encrypted:
        """The contribution, encrypted. Raises DataError where a value is beyond its bound."""
        assert self._session is not None  # noqa: S101 - receive was called for it
        self._encoder = Encoder(step.reply, len(self.parties), self.largest)
        return self._session.encrypted(body, self._encoder)

    def _of(self, nonce: bytes) -> EncryptionSession:
        self.openings.check(nonce)
        assert self._session is not None  # noqa: S101 - a sum is open
        return self._session
