"""A site's half of one secure sum. Each of its phases runs once; what it holds lives in this process alone.

Every check that fails raises Refused, names the site it concerns, and ends this site's part in the sum.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from medfed.core.errors import RefusalReason, Refused
from medfed.core.messages import Message
from medfed.privacy.agreement import KEY_BYTES, Signs, Verifies, agreed_secret, derived, is_key, opened, sealed
from medfed.privacy.graph import circle, neighbourhood, neighbours, parts
from medfed.privacy.masks import Mask, apply_masks
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.messages import (
    Advertised,
    Boxes,
    Confirmations,
    Confirmed,
    KeyList,
    Masked,
    Revealed,
    Survivors,
    box_info,
    pair_info,
    roster_of,
    survivors_signed,
)
from medfed.privacy.shamir import PRIME, share

SHARE_BYTES = (PRIME.bit_length() + 7) // 8


class _Next(enum.IntEnum):
    """The phase that may come next."""

    SHARE, CONTRIBUTE, MASK, CONFIRM, REVEAL, NOTHING = range(6)


class MaskingSession:
    """One sum at one site.

    session: :func:`~medfed.privacy.secagg.messages.session_of` it. parties: the identities of all sites of the task,
    this one's included. asked: the number of sites that are asked, which decides how few may be left.
    """

    def __init__(self, session: bytes, site: str, identity: Signs, parties: Mapping[str, Verifies], asked: int) -> None:
        self._session, self._site = session, site
        self._identity, self._parties, self._asked = identity, parties, asked
        self._next = _Next.SHARE
        self._box_key, self._mask_key = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._seed = secrets.token_bytes(KEY_BYTES)
        self._keys: dict[str, Advertised] = {}
        self._neighbours: dict[str, tuple[str, ...]] = {}
        self._threshold = self._least = self._degree = 0
        self._circle: list[str] = []
        self._roster = b""
        self._senders: tuple[str, ...] = ()
        self._seed_shares: dict[str, bytes] = {}
        self._key_shares: dict[str, bytes] = {}
        self._survivors: tuple[str, ...] = ()

    def advertise(self, formed: tuple[str, ...]) -> Advertised:
        """Round 0: this site's keys, signed. formed: see :class:`Advertised`."""
        keys = Advertised(
            self._box_key.public_key().public_bytes_raw(),
            self._mask_key.public_key().public_bytes_raw(),
            hashlib.sha256(self._seed).digest(),
            b"",
            formed,
        )
        signature = self._identity.sign(keys.signed(self._session, self._site))
        return Advertised(keys.box_key, keys.mask_key, keys.seed_hash, signature, formed)

    def share(self, told: KeyList) -> Boxes:
        """Round 1: check everybody's keys; share the seed and the private mask key among the neighbours."""
        self._enter(_Next.SHARE)
        self._check_keys(told)
        size = neighbourhood(len(told.sites), self._asked)
        if len(told.sites) < size.least:
            _refuse(f"a sum of {len(told.sites)} sites is asked for, and it takes {size.least}")
        self._threshold, self._least, self._degree = size.threshold, size.least, size.degree
        self._keys = dict(zip(told.sites, told.keys, strict=True))
        self._roster = roster_of(self._session, told)
        self._circle = circle(told.sites, self._roster)
        self._neighbours = neighbours(told.sites, size.degree, self._roster)
        mine, points = self._neighbours[self._site], {site: place + 1 for place, site in enumerate(told.sites)}
        receivers = [points[site] for site in (self._site, *mine)]
        seed = share(int.from_bytes(self._seed, "big"), self._threshold, receivers)
        key = share(int.from_bytes(self._mask_key.private_bytes_raw(), "big"), self._threshold, receivers)
        self._seed_shares[self._site] = _bytes(seed[points[self._site]])
        return Boxes(
            tuple(
                sealed(
                    self._box_secret(site, self._site, site),
                    _bytes(seed[points[site]]) + _bytes(key[points[site]]),
                    box_info(self._session, self._site, site),
                )
                for site in mine
            )
        )

    def receive(self, senders: tuple[str, ...], boxes: tuple[bytes, ...]) -> None:
        """Round 2, before the step runs: open the shares of the neighbours that are still here."""
        self._enter(_Next.CONTRIBUTE)
        if senders != tuple(sorted(set(senders) & self._keys.keys())) or self._site not in senders:
            _refuse("the sites that shared are not among those whose keys were shown")
        if len(senders) < self._least:
            _refuse(f"{len(senders)} sites shared, and a sum takes {self._least}")
        here = [site for site in self._neighbours[self._site] if site in senders]
        if len(boxes) != len(here):
            _refuse("there are not as many boxes as neighbours that shared")
        for site, box in zip(here, boxes, strict=True):
            about = box_info(self._session, site, self._site)
            content = opened(self._box_secret(site, site, self._site), box, about)
            if content is None or len(content) != 2 * SHARE_BYTES:
                _refuse(f"the box of {site!r} is not from it, or not for this sum")
            self._seed_shares[site], self._key_shares[site] = content[:SHARE_BYTES], content[SHARE_BYTES:]
        self._senders = senders

    def masked(self, contribution: Message, encoder: Encoder) -> Masked:
        """Round 2: y_u, once. Raises DataError as :meth:`Encoder.encode` does."""
        self._enter(_Next.MASK)
        rings = encoder.encode(contribution)
        masks = [Mask(self._seed_mask(), 1)]
        for site in self._neighbours[self._site]:
            if site in self._senders:
                secret = agreed_secret(self._mask_key, self._keys[site].mask_key)
                pair = derived(secret, pair_info(self._session, self._site, site))
                masks.append(Mask(pair, 1 if site > self._site else -1))
        apply_masks(rings.values(), masks)
        return Masked.of(Layout.of(contribution), rings)

    def confirm(self, told: Survivors) -> Confirmed:
        """Round 3: sign the survivors, once."""
        self._enter(_Next.CONFIRM)
        self.check_survivors(told.sites)
        self._survivors = told.sites
        return Confirmed(self._identity.sign(survivors_signed(self._roster, told.sites)))

    def check_survivors(self, sites: tuple[str, ...]) -> None:
        """Refuse survivors that are too few, or did not share."""
        if sites != tuple(sorted(set(sites) & set(self._senders))) or self._site not in sites:
            _refuse("the survivors are not among the sites that shared")
        if len(sites) < self._least:
            _refuse(f"{len(sites)} sites would make the total, and it takes {self._least}")
        if parts(self._circle, self._degree, set(sites), self._threshold):
            _refuse("too many of some sites' neighbours dropped out: the others' masks would not hide them")

    def reveal(self, told: Confirmations) -> Revealed:
        """Round 4: of each neighbour, a share of its seed or of its key; of nobody both."""
        self._enter(_Next.REVEAL)
        signed = survivors_signed(self._roster, self._survivors)
        if len(told.sites) != len(told.signatures) or told.sites != tuple(sorted(set(told.sites))):
            _refuse("the confirmations are not one of each site")
        for site, signature in zip(told.sites, told.signatures, strict=True):
            if site not in self._survivors or not self._parties[site].verifies(signature, signed):
                _refuse(f"{site!r} confirmed other survivors than were shown here")
        near = {self._site, *self._neighbours[self._site]}
        if len(told.sites) < self._least or len(near & set(told.sites)) < self._threshold:
            _refuse(f"{len(told.sites)} sites confirmed the survivors, which are too few")
        survived = set(self._survivors)
        return Revealed(
            tuple(
                self._seed_shares.get(site, b"") if site in survived else self._key_shares.get(site, b"")
                for site in self._senders
            )
        )

    def _check_keys(self, told: KeyList) -> None:
        if told.sites != tuple(sorted(set(told.sites))) or len(told.sites) != len(told.keys):
            _refuse("the keys are not one of each site")
        if self._site not in told.sites:
            _refuse("this site's own keys are not among those shown")
        for site, keys in zip(told.sites, told.keys, strict=True):
            if site not in self._parties:
                _refuse(f"{site!r} is no party to the task")
            if not self._parties[site].verifies(keys.signature, keys.signed(self._session, site)):
                _refuse(f"the keys of {site!r} were not signed by it for this sum")
            if not (is_key(keys.box_key) and is_key(keys.mask_key)):
                _refuse(f"{site!r} shows a key that is none")
        own = told.keys[told.sites.index(self._site)]
        if own.mask_key != self._mask_key.public_key().public_bytes_raw():
            _refuse("other keys than this site's own are shown under its name")
        for name in ("box_key", "mask_key"):
            shown = [getattr(keys, name) for keys in told.keys]
            if twice := {key for key in shown if shown.count(key) > 1}:
                sites = [site for site, key in zip(told.sites, shown, strict=True) if key in twice]
                _refuse(f"the same key is shown for {_listed(sites)}")

    def _box_secret(self, other: str, sender: str, receiver: str) -> bytes:
        secret = agreed_secret(self._box_key, self._keys[other].box_key)
        return derived(secret, box_info(self._session, sender, receiver))

    def _seed_mask(self) -> bytes:
        return derived(self._seed, pair_info(self._session, self._site, self._site))

    def _enter(self, phase: _Next) -> None:
        """Refuse a phase that does not come next; whatever happens in it, it does not come again."""
        if self._next is not phase:
            _refuse("a question of a secure sum came again, or before its turn")
        self._next = _Next(phase + 1)


def _bytes(element: int) -> bytes:
    return element.to_bytes(SHARE_BYTES, "big")


def _listed(sites: Sequence[str]) -> str:
    return ", ".join(repr(site) for site in sites)


def _refuse(cause: str) -> NoReturn:
    raise Refused(cause, reason=RefusalReason.SECURE_SUM)
