"""The coordinator's half of one sum under encryption: it passes on sealed keys, and adds up what it cannot read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from medfed.core.errors import CodecError, QuorumLost
from medfed.core.messages import Message
from medfed.privacy.graph import least_sites
from medfed.privacy.he.ckks import Ciphertexts, Scheme
from medfed.privacy.he.messages import BoxKey, Encrypted, Encryption, Roster, SealedKeys, Statements
from medfed.privacy.he.words import words_in
from medfed.privacy.ring import Encoder, Layout


class _Part(NamedTuple):
    """A contribution, and its digest."""

    said: Encrypted
    digest: bytes


@dataclass
class EncryptedSum:
    """One sum at the coordinator. session, nonce: of the sum. asked: as at the sites."""

    session: bytes
    nonce: bytes
    asked: int
    scheme: Scheme = field(default_factory=Scheme)
    roster: Roster = field(init=False)
    dealer: str = ""
    _boxes: dict[str, bytes] = field(default_factory=dict)
    _parts: dict[str, _Part] = field(default_factory=dict)

    def roster_of(self, keys: Mapping[str, BoxKey]) -> Roster:
        """What the sites are shown of each other. Raises QuorumLost where they are too few."""
        self._check(len(keys), "made keys")
        sites = tuple(sorted(keys))
        self.roster = Roster(self.nonce, sites, tuple(keys[site] for site in sites))
        return self.roster

    def take_keys(self, dealer: str, keys: SealedKeys) -> None:
        """The secret key that a site sealed for the others. Raises CodecError where it is not one box for each."""
        others = [site for site in self.roster.sites if site != dealer]
        if len(keys.boxes) != len(others):
            raise CodecError("it did not seal one key for each other site")
        self.dealer, self._boxes = dealer, dict(zip(others, keys.boxes, strict=True))

    @property
    def digest(self) -> bytes:
        """What contributions and totals are signed for (:meth:`Roster.digest`)."""
        return self.roster.digest(self.session, self.dealer)

    def question(self, site: str, content: Message) -> Encryption:
        """What a site is asked for its contribution."""
        return Encryption(self.nonce, self.roster, self.dealer, self._boxes.get(site, b""), content)

    def take(self, site: str, part: Encrypted, digest: bytes, encoder: Encoder) -> None:
        """Keep a contribution, whose array may look into a file, until all are here. digest: its own.

        Raises CodecError where its ciphertexts are none, or not those of its layout.
        """
        self.scheme.form.check(part.ciphertexts, words_in(encoder.sizes(part.layout)))
        self._parts[site] = _Part(part, digest)

    def statements(self) -> Statements:
        """Of the contributions that make the total: those of the layout that most have. Raises QuorumLost."""
        layouts: list[tuple[Layout, list[str]]] = []
        for site, part in sorted(self._parts.items()):
            for layout, alike in layouts:
                if layout.same_as(part.said.layout):
                    alike.append(site)
                    break
            else:
                layouts.append((part.said.layout, [site]))
        sites = max((alike for _, alike in layouts), key=len, default=[])
        self._check(len(sites), "contributed")
        self._parts = {site: self._parts[site] for site in sites}
        parts = self._parts.values()
        return Statements(
            self.nonce,
            tuple(sites),
            tuple(part.digest for part in parts),
            tuple(part.said.tag for part in parts),
            tuple(part.said.signature for part in parts),
        )

    @property
    def layout(self) -> Layout:
        """The layout of the contributions that make the total."""
        return next(iter(self._parts.values())).said.layout

    def add(self, into: Ciphertexts) -> None:
        """Write the sum of the ciphertexts, one after the other."""
        for number, row in enumerate(into):
            row[:] = self.scheme.add([part.said.ciphertexts[number] for part in self._parts.values()])

    def enough(self, signed: int) -> None:
        """Raise QuorumLost where too few signed the statements."""
        self._check(signed, "agreed on the total")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the sum's ciphertexts."""
        return np.shape(next(iter(self._parts.values())).said.ciphertexts)

    def _check(self, found: int, did: str) -> None:
        least = least_sites(self.asked)
        if found < least:
            raise QuorumLost(
                f"{found} sites {did}, and a sum under encryption takes {least} of the {self.asked} that are asked",
                remedy="mend the sites and go on with: medfed run --resume DIR",
            )
