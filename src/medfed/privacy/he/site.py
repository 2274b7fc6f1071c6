"""A site's half of one sum under encryption. Each of its phases runs once; the keys live in this process alone.

Every check that fails raises Refused, names the site it concerns, and ends this site's part in the sum.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from medfed.core.errors import CodecError, RefusalReason, Refused
from medfed.core.messages import Message
from medfed.privacy.agreement import KEY_BYTES, Signs, Verifies, agreed_secret, derived, is_key, opened, sealed
from medfed.privacy.graph import least_sites
from medfed.privacy.he.authenticator import TAG_BYTES, Authenticator
from medfed.privacy.he.ckks import SecretKey
from medfed.privacy.he.messages import (
    BoxKey,
    Decryption,
    Encrypted,
    Encryption,
    Roster,
    SealedKeys,
    Statements,
    box_info,
    contribution_signed,
)
from medfed.privacy.he.words import rings_of, words_in, words_of
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.messages import Confirmed


class _Next(enum.IntEnum):
    """The phase that may come next."""

    RECEIVE, ENCRYPT, AGREE, DECRYPT, NOTHING = range(5)


class EncryptionSession:
    """One sum at one site.

    session: :func:`~medfed.privacy.secagg.messages.session_of` it. parties: the identities of all sites of the task,
    this one's included. asked: the number of sites that are asked, which decides how few may be left.
    """

    def __init__(self, session: bytes, site: str, identity: Signs, parties: Mapping[str, Verifies], asked: int) -> None:
        self._session, self._site = session, site
        self._identity, self._parties = identity, parties
        self._least = least_sites(asked)
        self._next = _Next.RECEIVE
        self._box_key = X25519PrivateKey.generate()
        self._roster = b""
        self._sites: tuple[str, ...] = ()
        self._dealt: bytes | None = None
        self._secret = b""
        self._key: SecretKey | None = None
        self._own: tuple[bytes, bytes] = b"", b""
        self._layout: Layout | None = None
        self._agreed: Statements | None = None

    def advertise(self, formed: tuple[str, ...]) -> BoxKey:
        """Question 0: this site's key, signed. formed: see :class:`BoxKey`."""
        key = BoxKey(self._box_key.public_key().public_bytes_raw(), b"", formed)
        return BoxKey(key.box_key, self._identity.sign(key.signed(self._session, self._site)), formed)

    def deal(self, told: Roster) -> SealedKeys:
        """Question 1, where this site is asked it: a new secret key, and a seed, sealed for each other site."""
        if self._dealt is not None or self._next is not _Next.RECEIVE:
            _refuse("a question of a sum under encryption came again, or before its turn")
        self._check_roster(told)
        self._dealt = told.digest(self._session, self._site)
        self._key, seed = SecretKey.generate(), secrets.token_bytes(KEY_BYTES)
        self._secret = seed + self._key.content()
        return SealedKeys(
            tuple(
                sealed(self._box_secret(key, site, self._dealt), self._secret, box_info(self._dealt, site))
                for site, key in zip(told.sites, told.keys, strict=True)
                if site != self._site
            )
        )

    def receive(self, told: Encryption) -> None:
        """Question 2, before the step runs: check everybody's keys, and open the secret key."""
        self._enter(_Next.RECEIVE)
        self._check_roster(told.roster)
        if told.dealer not in told.roster.sites:
            _refuse("the site that made the secret key is not among those whose keys were shown")
        self._roster, self._sites = told.roster.digest(self._session, told.dealer), told.roster.sites
        if told.dealer == self._site:
            if self._dealt != self._roster:
                _refuse("this site made no secret key for these sites")
            return
        dealer = told.roster.keys[told.roster.sites.index(told.dealer)]
        secret = self._box_secret(dealer, self._site, self._roster)
        content = opened(secret, told.box, box_info(self._roster, self._site))
        if content is None:
            _refuse(f"the secret key is not from {told.dealer!r}, or not for this sum")
        try:
            self._key, self._secret = SecretKey.of(content[KEY_BYTES:]), content
        except CodecError as error:
            _refuse(f"{told.dealer!r} sent no secret key: {error.cause}")

    def encrypted(self, contribution: Message, encoder: Encoder) -> Encrypted:
        """Question 2: the contribution, encrypted, once. Raises DataError as :meth:`Encoder.encode` does."""
        self._enter(_Next.ENCRYPT)
        assert self._key is not None  # noqa: S101 - the phase before saw to it
        words = words_of(encoder.encode(contribution))
        self._layout = Layout.of(contribution)
        tag = self._authenticator.tag(self._site, words)
        found = Encrypted(self._layout, self._key.encrypt(words), tag, b"")
        self._own = found.digest(), tag
        signature = self._identity.sign(contribution_signed(self._roster, self._site, *self._own))
        return Encrypted(found.layout, found.ciphertexts, tag, signature)

    def check_statements(self, told: Statements) -> None:
        """Refuse a total of too few sites, or of other contributions than the sites signed."""
        if not len(told.sites) == len(told.digests) == len(told.tags) == len(told.signatures):
            _refuse("the statements are not one of each site")
        if told.sites != tuple(sorted(set(told.sites) & set(self._sites))) or self._site not in told.sites:
            _refuse("the contributions are not those of sites whose keys were shown")
        if len(told.sites) < self._least:
            _refuse(f"{len(told.sites)} sites would make the total, and it takes {self._least}")
        for site, digest, tag, signature in zip(told.sites, told.digests, told.tags, told.signatures, strict=True):
            signed = contribution_signed(self._roster, site, digest, tag)
            if len(tag) != TAG_BYTES or not self._parties[site].verifies(signature, signed):
                _refuse(f"{site!r} did not sign the contribution that is shown as its own")
            if site == self._site and (digest, tag) != self._own:
                _refuse("another contribution than this site's own is shown under its name")

    def agree(self, told: Statements) -> Confirmed:
        """Question 3: sign whose contributions make the total, once."""
        self._enter(_Next.AGREE)
        self.check_statements(told)
        self._agreed = told
        return Confirmed(self._identity.sign(told.agreed(self._roster)))

    def decrypt(self, told: Decryption, encoder: Encoder) -> Message:
        """Question 4: the total, once, if it is that of the contributions that enough sites agreed on."""
        self._enter(_Next.DECRYPT)
        agreed, key, layout = self._agreed, self._key, self._layout
        assert agreed is not None and key is not None and layout is not None  # noqa: S101 - earlier phases saw to it
        if len(told.sites) != len(told.signatures) or told.sites != tuple(sorted(set(told.sites))):
            _refuse("the signatures are not one of each site")
        signed = agreed.agreed(self._roster)
        for site, signature in zip(told.sites, told.signatures, strict=True):
            if site not in agreed.sites or not self._parties[site].verifies(signature, signed):
                _refuse(f"{site!r} agreed on another total than was shown here")
        if len(told.sites) < self._least:
            _refuse(f"{len(told.sites)} sites agreed on the total, and it takes {self._least}")
        sizes = encoder.sizes(layout)
        try:
            sums = key.decrypt(told.ciphertexts, words_in(sizes))
        except CodecError as error:
            _refuse(f"what is to be decrypted is no total: {error.cause}")
        if not self._authenticator.fits(sums, zip(agreed.sites, agreed.tags, strict=True)):
            _refuse("what is to be decrypted is not the sum of the contributions that were agreed on")
        return encoder.decode(rings_of(sums, sizes), layout)

    @property
    def _authenticator(self) -> Authenticator:
        return Authenticator(self._secret[:KEY_BYTES], self._roster)

    def _check_roster(self, told: Roster) -> None:
        if told.sites != tuple(sorted(set(told.sites))) or len(told.sites) != len(told.keys):
            _refuse("the keys are not one of each site")
        if self._site not in told.sites:
            _refuse("this site's own key is not among those shown")
        if len(told.sites) < self._least:
            _refuse(f"a sum of {len(told.sites)} sites is asked for, and it takes {self._least}")
        for site, key in zip(told.sites, told.keys, strict=True):
            if site not in self._parties:
                _refuse(f"{site!r} is no party to the task")
            if not self._parties[site].verifies(key.signature, key.signed(self._session, site)):
                _refuse(f"the key of {site!r} was not signed by it for this sum")
            if not is_key(key.box_key):
                _refuse(f"{site!r} shows a key that is none")
        if told.keys[told.sites.index(self._site)].box_key != self._box_key.public_key().public_bytes_raw():
            _refuse("another key than this site's own is shown under its name")

    def _box_secret(self, other: BoxKey, receiver: str, roster: bytes) -> bytes:
        return derived(agreed_secret(self._box_key, other.box_key), box_info(roster, receiver))

    def _enter(self, phase: _Next) -> None:
        """Refuse a phase that does not come next; whatever happens in it, it does not come again."""
        if self._next is not phase:
            self._next = _Next.NOTHING
            _refuse("a question of a sum under encryption came again, or before its turn")
        self._next = _Next(phase + 1)


def _refuse(cause: str) -> NoReturn:
    raise Refused(cause, reason=RefusalReason.SECURE_SUM)
