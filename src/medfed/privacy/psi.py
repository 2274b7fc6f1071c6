"""Private set intersection of two parties' identifiers by Diffie-Hellman on Curve25519.

Meadows 1986 (IEEE S&P), Huberman, Franklin and Hogg 1999 (ACM EC, section 4). Each party blinds its hashed identifiers
by a scalar of its own, drawn afresh for each session, and blinds the other's blinded points again; a·b·H(x) is
the same from either side. It goes in two parts, each method's result being sent to the peer::

    commitment = party.commit()                     # sizes and digests, signed
    blinded = party.blind(peers_commitment)         # a·H(x), shuffled
    pledge = party.pledge(peers_blinded)            # a digest of the next
    doubled = party.reply(peers_pledge)             # the peer's points blinded again and shuffled again
    cardinality = party.count(peers_doubled)        # how many are in common, not which
    agreement = party.agree()                       # only if this party wants to go on
    ordered = party.order(peers_agreement)          # the same points as in the reply, in the order received
    matches = party.match(peers_ordered)            # this party's rows in common

A party that keeps to the protocol learns the number in the first part, and which in the second, without learning
anything else of the peer's identifiers but how many they are. What one that does not can do, a page says:
docs/explanation/set-intersection.md. What commitments and agreements say is for the caller to record, and how many
sessions a project may have is for the caller to limit.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from medfed.core.errors import MedFedError, Refused, UserError
from medfed.privacy.curve import as_array, hashed_to_curve, multiplied, received, refuse_twist
from medfed.privacy.framing import framed
from medfed.privacy.identifiers import InputReport, prepared
from medfed.privacy.psi_messages import (
    Agreement,
    BlindedSet,
    Commitment,
    DoublyBlinded,
    OrderedSet,
    Pledge,
    SignedAgreement,
    SignedCommitment,
)


@dataclass(frozen=True)
class Sizes:
    """How many identifiers a set may have, both ends included."""

    least: int
    most: int


@dataclass(frozen=True)
class Terms:
    """What a party goes into a session under; the peer's differ in ``party``, ``peer`` and its own limits.

    session: agreed with the peer, never used before in the project.
    key: the project's key, 32 bytes or more, which only the two parties have: without it, points of one project
        cannot be compared with another's, nor tried against a list of identifiers by those who carry the messages.
    least_common: below this, the number in common is withheld and the session ends.
    drop_missing: leave out rows without an identifier, rather than refuse to begin.
    """

    project: str
    session: str
    party: str
    peer: str
    key: bytes = field(repr=False)
    own: Sizes
    others: Sizes
    least_common: int
    drop_missing: bool = False

    def __post_init__(self) -> None:
        if len(self.key) < 32:
            raise UserError("a project's key has 32 bytes or more", remedy="draw it by secrets.token_bytes(32)")
        if self.party == self.peer:
            raise UserError("a set is intersected with another party's")
        if not all(1 <= sizes.least <= sizes.most for sizes in (self.own, self.others)) or self.least_common < 1:
            raise UserError("the limits of a set intersection are 1 or more, and the least is not above the most")


@dataclass(frozen=True)
class Witness:
    """What a party's caller lends it.

    sign: the signature of a message under this party's key.
    verify: whether (signature, message) is by the peer's key, which the caller trusts beforehand.
    claim: whether (project, session) was never claimed before; remembered durably before it returns True.
    """

    sign: Callable[[bytes], bytes]
    verify: Callable[[bytes, bytes], bool]
    claim: Callable[[str, str], bool]


@dataclass(frozen=True)
class Cardinality:
    """Sizes of the two sets and of what they have in common."""

    own: int
    others: int
    common: int


@dataclass(frozen=True, eq=False)
class Matches:
    """rows: int64 (common,), rows of the identifiers as they were given; the k-th is the same identifier's at the peer.

    An identifier that was given more than once stands for its first row.
    """

    rows: NDArray[np.int64] = field(repr=False)


class _Phase(enum.IntEnum):
    COMMIT, BLIND, PLEDGE, REPLY, COUNT, AGREE, ORDER, MATCH, ENDED = range(9)


class Party:
    """One party in one session. Each method is called once, in the order above; whatever fails ends the session.

    ``progress`` gets (points done, points in all), every thousand. Methods raise Refused where the peer does not keep
    to the protocol or a limit says no, and MedFedError where they are called out of turn. No error names an identifier.
    """

    def __init__(
        self,
        terms: Terms,
        identifiers: Sequence[str | None],
        witness: Witness,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Raises DataError where identifiers are missing or no text, Refused where they are too few or too many."""
        inputs = prepared(identifiers, drop_missing=terms.drop_missing)
        _within(len(inputs.identifiers), terms.own, "this party's set")
        order = list(range(len(inputs.identifiers)))
        secrets.SystemRandom().shuffle(order)
        self._terms, self._witness, self._progress = terms, witness, progress
        self._shuffled = [inputs.identifiers[index] for index in order]
        self._rows = [inputs.rows[index] for index in order]
        self._report = inputs.report
        self._scalar = X25519PrivateKey.generate()
        self._phase = _Phase.COMMIT

    @property
    def report(self) -> InputReport:
        """How many identifiers were given, missing, repeated and used."""
        return self._report

    def scalar_for_audit(self) -> bytes:
        """The session's scalar, by which an auditor opens this party's commitment (:func:`opens`).

        Keep it at the site if audits are agreed on, and never give it to the peer: with it and the project's key, it
        could try any identifier against this party's points.
        """
        return self._scalar.private_bytes_raw()

    def commit(self) -> SignedCommitment:
        """Claim the session, blind the own set, and commit to it."""
        with self._turn(_Phase.COMMIT):
            terms = self._terms
            if self._witness.claim(terms.project, terms.session) is not True:
                raise Refused("this session was used before", remedy="agree on a new session")
            points = _hashed(terms.key, terms.project, self._shuffled)
            self._own = multiplied(self._scalar, points, self._reporter())
            self._commitment = Commitment(
                terms.project,
                terms.session,
                terms.party,
                len(self._own),
                _digest("set", terms.project, terms.session, terms.party, self._own),
                _key_check(terms.key, terms.project, terms.session),
            )
            return SignedCommitment(self._commitment, self._witness.sign(self._commitment.statement()))

    def blind(self, peer: SignedCommitment) -> BlindedSet:
        """Check the peer's commitment, and show the own set blinded."""
        with self._turn(_Phase.BLIND):
            theirs, terms = peer.commitment, self._terms
            self._from_peer(theirs.session, theirs.party)
            if theirs.project != terms.project:
                raise Refused("the peer's commitment is for another project")
            if self._witness.verify(peer.signature, theirs.statement()) is not True:
                raise Refused("the peer's commitment is not signed by its key")
            if not hmac.compare_digest(theirs.key_check, self._commitment.key_check):
                raise Refused("the peer has another key for this project", remedy="exchange the project's key again")
            _within(theirs.size, terms.others, "the peer's set")
            self._theirs = theirs
            return BlindedSet(terms.session, terms.party, as_array(self._own))

    def pledge(self, peer: BlindedSet) -> Pledge:
        """Check the peer's points against its commitment, blind them again, and pledge the result."""
        with self._turn(_Phase.PLEDGE):
            self._from_peer(peer.session, peer.party)
            terms, theirs, what = self._terms, self._theirs, "the peer's blinded points"
            points = received(peer.points, theirs.size, what)
            if _digest("set", terms.project, terms.session, terms.peer, points) != theirs.digest:
                raise Refused("the peer's points are not those that it committed to")
            if not set(self._own).isdisjoint(points):
                raise Refused("the peer sent this party's own points back as its own")
            refuse_twist(points, what)
            self._doubled = multiplied(self._scalar, points, self._reporter(done=len(self._own)))
            if len(set(self._doubled)) != len(points):
                raise Refused(f"{what} hold a point twice, in disguise: whoever repeats points is probing")
            self._blinded_by_peer = set(points)
            self._pledge = _digest("reply", terms.project, terms.session, terms.party, self._doubled)
            return Pledge(terms.session, terms.party, self._pledge)

    def reply(self, peer: Pledge) -> DoublyBlinded:
        """Give the peer its points blinded again, in an order of their own."""
        with self._turn(_Phase.REPLY):
            self._from_peer(peer.session, peer.party)
            self._their_pledge = peer.digest
            shuffled = list(self._doubled)
            secrets.SystemRandom().shuffle(shuffled)
            return DoublyBlinded(self._terms.session, self._terms.party, as_array(shuffled))

    def count(self, peer: DoublyBlinded) -> Cardinality:
        """How many identifiers are in common. Raises Refused, without the number, where they are too few."""
        with self._turn(_Phase.COUNT):
            points = self._pledged(peer, "the peer's doubly blinded points")
            if not set(points).isdisjoint(self._own) or not set(points).isdisjoint(self._blinded_by_peer):
                raise Refused("the peer sent points back that it has not blinded again")
            self._common = len(set(points).intersection(self._doubled))
            if self._common < self._terms.least_common:
                raise Refused(f"fewer than {self._terms.least_common} identifiers are in common; how many is withheld")
            return Cardinality(len(self._own), self._theirs.size, self._common)

    def agree(self) -> SignedAgreement:
        """Say that this party wants both to learn which identifiers are in common."""
        with self._turn(_Phase.AGREE):
            terms = self._terms
            own = Agreement(terms.project, terms.session, terms.party, self._common, self._transcript())
            return SignedAgreement(own, self._witness.sign(own.statement()))

    def order(self, peer: SignedAgreement) -> OrderedSet:
        """Check that the peer agrees to the same count of the same sets, and let it find its own members."""
        with self._turn(_Phase.ORDER):
            theirs, terms = peer.agreement, self._terms
            self._from_peer(theirs.session, theirs.party)
            if self._witness.verify(peer.signature, theirs.statement()) is not True:
                raise Refused("the peer's agreement is not signed by its key")
            if theirs != Agreement(terms.project, terms.session, terms.peer, self._common, self._transcript()):
                raise Refused("the peer agrees to another count, or of other sets")
            return OrderedSet(terms.session, terms.party, as_array(self._doubled))

    def match(self, peer: OrderedSet) -> Matches:
        """This party's rows in common, in an order that is the same at the peer and tells nothing else."""
        with self._turn(_Phase.MATCH):
            doubled = set(self._doubled)
            points = self._pledged(peer, "the peer's ordered points")
            common = sorted((point, row) for point, row in zip(points, self._rows, strict=True) if point in doubled)
            return Matches(np.array([row for _, row in common], np.int64))

    @contextmanager
    def _turn(self, phase: _Phase) -> Iterator[None]:
        """One phase; the session has ended unless it succeeds."""
        current, self._phase = self._phase, _Phase.ENDED
        if current is not phase:
            raise MedFedError(
                f"{phase.name.lower()} was called when "
                + ("the session had ended" if current is _Phase.ENDED else f"{current.name.lower()} was next"),
                remedy="begin a new session with a new party object",
            )
        yield
        self._phase = _Phase(phase + 1)

    def _from_peer(self, session: str, party: str) -> None:
        if session != self._terms.session:
            raise Refused("the peer's message is of another session")
        if party != self._terms.peer:
            raise Refused("the message is not from the peer of this session")

    def _pledged(self, peer: DoublyBlinded | OrderedSet, what: str) -> list[bytes]:
        """The own points blinded again by the peer, which have to be those that it pledged."""
        self._from_peer(peer.session, peer.party)
        terms = self._terms
        points = received(peer.points, len(self._own), what)
        if _digest("reply", terms.project, terms.session, terms.peer, points) != self._their_pledge:
            raise Refused(f"{what} are not those that it pledged")
        return points

    def _transcript(self) -> bytes:
        """The digest of what both parties committed to, the same at both."""
        pairs = [(self._commitment, self._pledge), (self._theirs, self._their_pledge)]
        parts = [
            commitment.statement() + pledge for commitment, pledge in sorted(pairs, key=lambda pair: pair[0].party)
        ]
        return hashlib.sha256(framed(*parts)).digest()

    def _reporter(self, done: int = 0) -> Callable[[int], None] | None:
        """Progress over both blindings; until the peer's size is known, the own set's stands for it."""
        progress, total = self._progress, 2 * len(self._shuffled)
        if progress is None:
            return None
        if done:
            total = done + self._theirs.size
        return lambda number: progress(done + number, total)


def opens(commitment: Commitment, scalar: bytes, key: bytes, identifiers: Sequence[str | None]) -> bool:
    """Whether a party committed to just these identifiers, under that scalar: for an auditor at the party's site."""
    points = _hashed(key, commitment.project, prepared(identifiers, drop_missing=True).identifiers)
    blinded = multiplied(X25519PrivateKey.from_private_bytes(scalar), points)
    digest = _digest("set", commitment.project, commitment.session, commitment.party, blinded)
    return len(blinded) == commitment.size and hmac.compare_digest(digest, commitment.digest)


def _hashed(key: bytes, project: str, identifiers: Sequence[str]) -> list[bytes]:
    context = framed(b"medfed.psi.identifier", project.encode())
    return [hashed_to_curve(key, context, identifier) for identifier in identifiers]


def _key_check(key: bytes, project: str, session: str) -> bytes:
    return hmac.digest(key, framed(b"medfed.psi.key_check", project.encode(), session.encode()), "sha256")


def _digest(what: str, project: str, session: str, party: str, points: Sequence[bytes]) -> bytes:
    """SHA-256 over names and sorted points: the same in whatever order they are sent."""
    names = [text.encode() for text in (f"medfed.psi.{what}", project, session, party)]
    return hashlib.sha256(framed(*names) + b"".join(sorted(points))).digest()


def _within(size: int, sizes: Sizes, whose: str) -> None:
    if not sizes.least <= size <= sizes.most:
        raise Refused(f"{whose} has {size} identifiers, where {sizes.least} to {sizes.most} are allowed")
