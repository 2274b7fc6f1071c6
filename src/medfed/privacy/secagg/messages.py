"""What is said in a secure sum: five questions of the coordinator's, one after the other, and a site's answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import fingerprint
from medfed.core.messages import Message
from medfed.privacy.agreement import framed
from medfed.privacy.masks import Ring
from medfed.privacy.ring import Layout


@dataclass(frozen=True, eq=False)
class Opening(Message, wire="secagg.opening"):
    """Round 0: make keys for one sum. nonce: of 32 bytes, new for each; question: what will be summed
    (:func:`question_of`); asked: the number of sites that are."""

    nonce: bytes
    question: bytes
    asked: int


@dataclass(frozen=True, eq=False)
class Advertised(Message, wire="secagg.advertised"):
    """A site's keys for one sum. box_key: c_pk, to which shares are sealed; mask_key: s_pk, of which masks come.

    seed_hash: SHA-256 of the seed b_u, by which what is given back can be checked. signature: by the site's identity.
    formed: the sites over which this question was summed before; empty if it was not.
    """

    box_key: bytes
    mask_key: bytes
    seed_hash: bytes
    signature: bytes
    formed: tuple[str, ...] = ()

    def signed(self, session: bytes, site: str) -> bytes:
        """What the signature is of."""
        return framed("keys", session, site.encode(), self.box_key, self.mask_key, self.seed_hash)


@dataclass(frozen=True, eq=False)
class KeyList(Message, wire="secagg.key_list"):
    """Round 1: share your secrets among these sites (sorted), whose keys these are."""

    nonce: bytes
    sites: tuple[str, ...]
    keys: tuple[Advertised, ...]


@dataclass(frozen=True, eq=False)
class Boxes(Message, wire="secagg.boxes"):
    """A site's shares, sealed for each of its neighbours, in the order of their names."""

    boxes: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Contribution(Message, wire="secagg.contribution"):
    """Round 2: run the step on ``content`` and answer under masks.

    senders: the sites that shared (sorted). boxes: those that this site's neighbours among them sealed for it, in the
    order of their names.
    """

    nonce: bytes
    senders: tuple[str, ...]
    boxes: tuple[bytes, ...]
    content: Message


@dataclass(frozen=True, eq=False)
class Masked(Message, wire="secagg.masked"):
    """y_u: a contribution's elements in rings of 32, 64 and 256 bits, under masks; and how its fields lie in them."""

    layout: Layout
    narrow: NDArray[np.uint32]
    middle: NDArray[np.uint64]
    wide: NDArray[np.uint64]

    @property
    def rings(self) -> dict[int, Ring]:
        """The elements by the bits of their ring."""
        return {32: self.narrow, 64: self.middle, 256: self.wide}

    @classmethod
    def of(cls, layout: Layout, rings: dict[int, Ring]) -> Masked:
        """From elements by the bits of their ring."""
        return cls(layout, rings[32], rings[64], rings[256])  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Survivors(Message, wire="secagg.survivors"):
    """Round 3: sign that these sites' contributions (sorted) make the total."""

    nonce: bytes
    sites: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Confirmed(Message, wire="secagg.confirmed"):
    """A site's signature of the survivors."""

    signature: bytes


@dataclass(frozen=True, eq=False)
class Confirmations(Message, wire="secagg.confirmations"):
    """Round 4: these sites (sorted) signed the survivors; give back a share of one secret of each neighbour."""

    nonce: bytes
    sites: tuple[str, ...]
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Revealed(Message, wire="secagg.revealed"):
    """A site's shares of its neighbours' secrets (and of its own seed), big-endian, in the order of all senders' names:
    of the seed where a contribution arrived, of the private mask key where it did not; empty for all others."""

    shares: tuple[bytes, ...]


PHASES = Opening | KeyList | Contribution | Survivors | Confirmations
"""The questions of a secure sum."""


def question_of(step: str, message: Message) -> bytes:
    """SHA-256 of what is asked: the step, and the message to it."""
    return hashlib.sha256(framed("question", step.encode(), fingerprint(message).sha256.encode())).digest()


def session_of(task: str, run: str, opening: Opening) -> bytes:
    """SHA-256 of all that one sum is about; it stands in whatever is signed, sealed or derived for it."""
    told = task.encode(), run.encode(), opening.nonce, opening.question, str(opening.asked).encode()
    return hashlib.sha256(framed("session", *told)).digest()


def survivors_signed(roster: bytes, sites: tuple[str, ...]) -> bytes:
    """What a confirmation is a signature of. roster: :func:`roster_of` the keys."""
    return framed("survivors", roster, *(site.encode() for site in sites))


def pair_info(session: bytes, one: str, other: str) -> bytes:
    """What a pair's mask is derived for."""
    return framed("mask", session, *(site.encode() for site in sorted((one, other))))


def box_info(session: bytes, sender: str, receiver: str) -> bytes:
    """What a box is sealed for."""
    return framed("box", session, sender.encode(), receiver.encode())


def roster_of(session: bytes, keys: KeyList) -> bytes:
    """SHA-256 of the session and all keys: what was shown to all, of which the order of a sparse graph is drawn."""
    told = [part for site, key in zip(keys.sites, keys.keys, strict=True) for part in (site.encode(), key.signature)]
    return hashlib.sha256(framed("roster", session, *told)).digest()
