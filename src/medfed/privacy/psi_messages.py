"""What two parties of a private set intersection send each other, in this order; points are uint8 (n, 32)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import encode
from medfed.core.messages import Message


@dataclass(frozen=True)
class Commitment(Message, wire="psi.commitment"):
    """Which set a party goes into a session with.

    digest: SHA-256 over project, session, party and the party's blinded points, sorted.
    key_check: HMAC-SHA-256 of the session under the project's key, so that another key is noticed at once.
    """

    project: str
    session: str
    party: str
    size: int
    digest: bytes
    key_check: bytes

    def statement(self) -> bytes:
        """The bytes that are signed."""
        return b"medfed.psi.commitment\0" + encode(self)


@dataclass(frozen=True)
class SignedCommitment(Message, wire="psi.signed_commitment"):
    """A commitment and its party's signature. It holds no point: record it in the ledger."""

    commitment: Commitment
    signature: bytes


@dataclass(frozen=True, eq=False)
class BlindedSet(Message, wire="psi.blinded_set"):
    """A party's points a·H(x), shuffled."""

    session: str
    party: str
    points: NDArray[np.uint8]


@dataclass(frozen=True)
class Pledge(Message, wire="psi.pledge"):
    """SHA-256 of the peer's points blinded again, before either party shows them."""

    session: str
    party: str
    digest: bytes


@dataclass(frozen=True, eq=False)
class DoublyBlinded(Message, wire="psi.doubly_blinded"):
    """The peer's points blinded again and shuffled again: good for counting alone."""

    session: str
    party: str
    points: NDArray[np.uint8]


@dataclass(frozen=True)
class Agreement(Message, wire="psi.agreement"):
    """That a party saw ``common`` identifiers in common, and agrees that both learn which.

    transcript: SHA-256 over both commitments and both pledges.
    """

    project: str
    session: str
    party: str
    common: int
    transcript: bytes

    def statement(self) -> bytes:
        """The bytes that are signed."""
        return b"medfed.psi.agreement\0" + encode(self)


@dataclass(frozen=True)
class SignedAgreement(Message, wire="psi.signed_agreement"):
    """An agreement and its party's signature: record it in the ledger too."""

    agreement: Agreement
    signature: bytes


@dataclass(frozen=True, eq=False)
class OrderedSet(Message, wire="psi.ordered_set"):
    """The peer's points blinded again, in the order in which the peer sent them: good for finding its own."""

    session: str
    party: str
    points: NDArray[np.uint8]
