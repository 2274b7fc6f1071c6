"""The coordinator's half of one secure sum: it passes on what it cannot read, adds up, and takes the masks away."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from medfed.core.errors import CodecError, QuorumLost
from medfed.core.messages import Message
from medfed.privacy.agreement import KEY_BYTES, agreed_secret, derived
from medfed.privacy.graph import Neighbourhood, neighbourhood, neighbours
from medfed.privacy.masks import Mask, Ring, apply_masks
from medfed.privacy.ring import Encoder, Layout, add_into
from medfed.privacy.secagg.messages import Advertised, Boxes, KeyList, Masked, Revealed, pair_info, roster_of
from medfed.privacy.secagg.site import SHARE_BYTES
from medfed.privacy.shamir import PRIME, weights_at_zero


@dataclass
class _Sum:
    """The masked sum of contributions of one layout, and whose they are."""

    layout: Layout
    rings: dict[int, Ring]
    sites: list[str]


@dataclass
class Unmasking:
    """One sum at the coordinator. session, nonce: of the sum. asked: as at the sites."""

    session: bytes
    nonce: bytes
    asked: int
    _keys: KeyList = field(init=False)
    _size: Neighbourhood = field(init=False)
    _neighbours: dict[str, tuple[str, ...]] = field(init=False)
    _boxes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _sums: list[_Sum] = field(default_factory=list)

    def key_list(self, advertised: Mapping[str, Advertised]) -> KeyList:
        """What the sites are shown of each other. Raises QuorumLost where they are too few."""
        sites = tuple(sorted(advertised))
        self._size = neighbourhood(len(sites), self.asked)
        self._check(len(sites), "made keys")
        self._keys = KeyList(self.nonce, sites, tuple(advertised[site] for site in sites))
        self._neighbours = neighbours(sites, self._size.degree, self.roster)
        return self._keys

    def take_boxes(self, site: str, boxes: Boxes) -> None:
        """What a site sealed for its neighbours. Raises CodecError where it is not one box for each."""
        receivers = self._neighbours[site]
        if len(boxes.boxes) != len(receivers):
            raise CodecError("it did not send one box to each neighbour")
        self._boxes[site] = dict(zip(receivers, boxes.boxes, strict=True))

    @property
    def roster(self) -> bytes:
        """What confirmations are signatures of (:func:`~medfed.privacy.secagg.messages.roster_of`)."""
        return roster_of(self.session, self._keys)

    @property
    def senders(self) -> tuple[str, ...]:
        """The sites that shared, sorted. Raises QuorumLost where they are too few."""
        self._check(len(self._boxes), "shared their secrets")
        return tuple(sorted(self._boxes))

    def boxes_for(self, site: str) -> tuple[bytes, ...]:
        """The boxes that a site gets, in the order of its neighbours."""
        return tuple(self._boxes[other][site] for other in self._neighbours[site] if other in self._boxes)

    def add(self, site: str, masked: Masked, encoder: Encoder) -> None:
        """Add a masked contribution. Raises CodecError where its elements are not those of its layout."""
        if encoder.sizes(masked.layout) != {bits: part.shape for bits, part in masked.rings.items()}:
            raise CodecError("a masked contribution has not the elements of its layout")
        for known in self._sums:
            if known.layout.same_as(masked.layout):
                add_into(known.rings, masked.rings)
                known.sites.append(site)
                return
        self._sums.append(_Sum(masked.layout, {bits: part.copy() for bits, part in masked.rings.items()}, [site]))

    def survivors(self) -> tuple[str, ...]:
        """The sites whose contributions have the layout that most have, sorted. Raises QuorumLost."""
        self._sums.sort(key=lambda each: len(each.sites), reverse=True)
        self._check(len(self._sums[0].sites) if self._sums else 0, "contributed")
        return tuple(sorted(self._sums[0].sites))

    def total(self, revealed: Mapping[str, Revealed], encoder: Encoder) -> Message:
        """The sum over the survivors. Raises QuorumLost where too few gave shares, or shares are false."""
        survivors, senders = self.survivors(), self.senders
        self._check(len(revealed), "gave their shares")
        masks = []
        for place, site in enumerate(senders):
            shares = {by: given.shares[place] for by, given in revealed.items() if len(given.shares) == len(senders)}
            near = {by: each for by, each in shares.items() if by == site or by in self._neighbours[site]}
            secret = self._secret(site, {by: each for by, each in near.items() if len(each) == SHARE_BYTES}, survivors)
            if site in survivors:
                masks.append(Mask(derived(secret, pair_info(self.session, site, site)), -1))
                continue
            private = X25519PrivateKey.from_private_bytes(secret)
            for other in self._neighbours[site]:
                if other in survivors:
                    pair = agreed_secret(private, self._advertised(other).mask_key)
                    added = 1 if site > other else -1
                    masks.append(Mask(derived(pair, pair_info(self.session, site, other)), -added))
        found = self._sums[0]
        apply_masks(found.rings.values(), masks)
        total = encoder.decode(found.rings, found.layout)
        if (name := encoder.beyond(total, len(survivors))) is not None:
            raise QuorumLost(
                f"the total of {name!r} is larger than all sites' contributions can be: one of them broke its bound",
                remedy="leave out sites one by one to find which",
            )
        return total

    def _secret(self, site: str, shares: Mapping[str, bytes], survivors: tuple[str, ...]) -> bytes:
        """The seed of a survivor, or the private mask key of a site that dropped out.

        Where shares are to spare, one false one is found by leaving each out.
        """
        places = {other: place + 1 for place, other in enumerate(self._keys.sites)}
        elements = {places[by]: int.from_bytes(each, "big") for by, each in sorted(shares.items())}
        needed = self._size.threshold
        if len(elements) >= needed:
            points = sorted(elements)
            tries = [points[:needed], *([p for p in points if p != left][:needed] for left in points[:needed])]
            for chosen in tries if len(points) > needed else tries[:1]:
                weights = weights_at_zero(chosen)
                secret = _within(sum(elements[p] * w for p, w in weights.items()))
                if secret is not None and self._fits(site, secret, survivors):
                    return secret
        what = "seed" if site in survivors else "key"
        raise QuorumLost(
            f"{len(elements)} of the {needed} shares came that give back the {what} of {site!r}, or some are false",
            remedy="go on with: medfed run --resume DIR, when the sites are back",
        )

    def _fits(self, site: str, secret: bytes, survivors: tuple[str, ...]) -> bool:
        keys = self._advertised(site)
        if site in survivors:
            return hashlib.sha256(secret).digest() == keys.seed_hash
        return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw() == keys.mask_key

    def _advertised(self, site: str) -> Advertised:
        return self._keys.keys[self._keys.sites.index(site)]

    def _check(self, found: int, did: str) -> None:
        if found < self._size.least:
            raise QuorumLost(
                f"{found} sites {did}, and a secure sum takes {self._size.least} of the {self.asked} that are asked",
                remedy="mend the sites and go on with: medfed run --resume DIR",
            )


def _within(element: int) -> bytes | None:
    """A field element as a secret; None where it is none."""
    reduced = element % PRIME
    return reduced.to_bytes(KEY_BYTES, "big") if reduced < 2 ** (8 * KEY_BYTES) else None
