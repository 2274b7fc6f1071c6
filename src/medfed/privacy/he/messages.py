"""What is said in a sum under encryption: five questions of the coordinator's, and a site's answers.

The first is that of secure aggregation, as is what a session is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import fingerprint
from medfed.core.mapped import pieces
from medfed.core.messages import Message
from medfed.privacy import framing
from medfed.privacy.ring import Layout
from medfed.privacy.secagg.messages import Opening

_HASHED_AT_A_TIME = 2**20


@dataclass(frozen=True, eq=False)
class BoxKey(Message, wire="he.box_key"):
    """A site's X25519 key for one sum, to which the secret key is sealed. signature: by the site's identity.

    formed: the sites over which this question was summed before; empty if it was not.
    """

    box_key: bytes
    signature: bytes
    formed: tuple[str, ...] = ()

    def signed(self, session: bytes, site: str) -> bytes:
        """What the signature is of."""
        return framed("key", session, site.encode(), self.box_key)


@dataclass(frozen=True, eq=False)
class Roster(Message, wire="he.roster"):
    """Question 1, to one site: make a secret key, and seal it for these sites (sorted), whose keys these are."""

    nonce: bytes
    sites: tuple[str, ...]
    keys: tuple[BoxKey, ...]

    def digest(self, session: bytes, dealer: str) -> bytes:
        """SHA-256 of the session, of all keys and of who makes the secret key; what is sealed or signed names it."""
        sites = [site.encode() for site in self.sites]
        told = framed("roster", session, dealer.encode(), *sites, *(key.signature for key in self.keys))
        return hashlib.sha256(told).digest()


@dataclass(frozen=True, eq=False)
class SealedKeys(Message, wire="he.sealed_keys"):
    """The secret key and the authenticator's seed, sealed for each other site, in the order of their names."""

    boxes: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Encryption(Message, wire="he.encryption"):
    """Question 2: run the step on ``content`` and answer encrypted.

    dealer: the site that made the secret key. box: what it sealed for this site; empty for itself.
    """

    nonce: bytes
    roster: Roster
    dealer: str
    box: bytes
    content: Message


@dataclass(frozen=True, eq=False)
class Encrypted(Message, wire="he.encrypted"):
    """A contribution's words, encrypted (uint8 of shape (ciphertexts, bytes)), how its fields lie in them, its tag, and
    the site's signature."""

    layout: Layout
    ciphertexts: NDArray[np.uint8]
    tag: bytes
    signature: bytes

    def digest(self) -> bytes:
        """SHA-256 of the layout and of the ciphertexts."""
        hashed = hashlib.sha256(fingerprint(self.layout).sha256.encode())
        flat = self.ciphertexts.reshape(-1)
        for few in pieces(flat, _HASHED_AT_A_TIME):
            hashed.update(flat[few].tobytes())
        return hashed.digest()


@dataclass(frozen=True, eq=False)
class Statements(Message, wire="he.statements"):
    """Question 3: sign that the contributions of these sites (sorted), with these digests and tags, make the total."""

    nonce: bytes
    sites: tuple[str, ...]
    digests: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    signatures: tuple[bytes, ...]

    def agreed(self, roster: bytes) -> bytes:
        """What a site signs. roster: :meth:`Roster.digest`."""
        return framed("total", roster, *(site.encode() for site in self.sites), *self.digests, *self.tags)


@dataclass(frozen=True, eq=False)
class Decryption(Message, wire="he.decryption"):
    """Question 4, to one site: these sites (sorted) signed the statements; decrypt the sum of their ciphertexts."""

    nonce: bytes
    sites: tuple[str, ...]
    signatures: tuple[bytes, ...]
    ciphertexts: NDArray[np.uint8]


PHASES = Opening | Roster | Encryption | Statements | Decryption
"""The questions of a sum under encryption."""


def framed(use: str, *parts: bytes) -> bytes:
    """Bytes that are signed, derived or authenticated for one use of a sum under encryption."""
    return framing.framed(f"medfed he {use}".encode(), *parts)


def contribution_signed(roster: bytes, site: str, digest: bytes, tag: bytes) -> bytes:
    """What a contribution's signature is of. roster: :meth:`Roster.digest`."""
    return framed("contribution", roster, site.encode(), digest, tag)


def box_info(roster: bytes, receiver: str) -> bytes:
    """What the secret key is sealed for."""
    return framed("box", roster, receiver.encode())
