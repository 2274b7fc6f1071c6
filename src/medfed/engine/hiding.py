"""A site's part in sums whose parts are hidden from the coordinator, whichever mechanism forms them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from medfed.core.errors import RefusalReason, Refused
from medfed.core.messages import Message
from medfed.core.steps import Step
from medfed.privacy.he import messages as encryption
from medfed.privacy.secagg import messages as masks
from medfed.privacy.secagg.messages import Opening, question_of, session_of

PHASES = masks.PHASES | encryption.PHASES
"""The questions of such sums."""

CONTRIBUTIONS = masks.Contribution | encryption.Encryption
"""Those of them that ask for a contribution: their ``content`` is the step's message."""


class Hiding(Protocol):
    """A site's part in the sums of one run, one after the other. promise: what alone leaves the site. hidden, said: how
    the ledger names contributions that leave, and all else that does for the sums' sake."""

    @property
    def promise(self) -> str:
        """The end of: the task promises that only …"""
        ...

    @property
    def hidden(self) -> str:
        """The protection of a contribution."""
        ...

    @property
    def said(self) -> str:
        """The protection of any other answer."""
        ...

    def answer(self, message: Message) -> Message:
        """The answer to a question that asks for no contribution. Raises Refused."""
        ...

    def receive(self, step: str, message: Message) -> None:
        """What a contribution needs, before it is computed. Raises Refused."""
        ...

    def contribution(self, step: Step[Message, Message], body: Message) -> Message:
        """The contribution, hidden. Raises DataError where a value is beyond its bound."""
        ...


class FormedSums(Protocol):
    """Over which sites each question was summed at this site's word; kept for good, and never rewound."""

    def formed(self, question: bytes) -> tuple[str, ...]:
        """The sites; empty where it was not."""
        ...

    def form(self, question: bytes, sites: tuple[str, ...]) -> None:
        """Keep the sites of a question, which is new."""
        ...


@dataclass
class Openings:
    """Which sum is in progress at a site, and over whom its question may be summed.

    task, run: what the sums belong to. asked, parties: the sites that the task asks in a sum at least, and all.
    """

    task: str
    run: str
    asked: int
    parties: int
    sums: FormedSums
    _nonce: bytes = b""
    _question: bytes = b""
    _used: set[bytes] = field(default_factory=set)

    def open(self, message: Opening) -> bytes:
        """Begin a sum; its session. Raises Refused for an old number, or other sites than the task asks."""
        if message.nonce in self._used or len(message.nonce) != 32:
            raise refused("a secure sum was opened with the number of an earlier one")
        if not self.asked <= message.asked <= self.parties:
            raise refused("a sum of other sites than the task says is asked for")
        self._used.add(message.nonce)
        self._nonce, self._question = message.nonce, message.question
        return session_of(self.task, self.run, message)

    @property
    def formed(self) -> tuple[str, ...]:
        """The sites over which the present question was summed before; empty if it was not."""
        return self.sums.formed(self._question)

    def check(self, nonce: bytes) -> None:
        """Raise Refused for another sum than the present one."""
        if not self._nonce or nonce != self._nonce:
            raise refused("this site holds no keys for that secure sum: it was started anew, or another was opened")

    def check_question(self, step: str, content: Message) -> None:
        """Raise Refused where another question is asked than the sum was opened for."""
        if question_of(step, content) != self._question:
            raise refused("another question is asked than the one that the sum was opened for")

    def bind(self, sites: tuple[str, ...]) -> None:
        """Keep for good over which sites the question is summed. Raises Refused where it was summed over others."""
        formed = self.formed
        if formed and formed != sites:
            raise refused(
                "this very sum was formed before over other sites, and the two would give one site's part away",
                remedy="sum it over the same sites, or start a new run",
            )
        if not formed:
            self.sums.form(self._question, sites)


def refused(cause: str, remedy: str = "") -> Refused:
    """A refusal to take part in a sum."""
    return Refused(cause, reason=RefusalReason.SECURE_SUM, remedy=remedy)
