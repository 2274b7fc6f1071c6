"""Rows of ``benchmarks.privacy`` for sums under homomorphic encryption: whole ones, or a part of them by its cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row
from medfed.algorithms.fedavg import WeightedDelta
from medfed.core.codec import parts
from medfed.core.messages import Message
from medfed.govern.keys import SigningKey
from medfed.privacy.he.authenticator import Authenticator
from medfed.privacy.he.ckks import WORDS, SecretKey
from medfed.privacy.he.coordinator import EncryptedSum
from medfed.privacy.he.messages import Decryption, Encrypted
from medfed.privacy.he.site import EncryptionSession
from medfed.privacy.he.words import words_of
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.messages import Opening, session_of

_BOUND = 4096.0

_AT_MOST = 49 * WORDS - 1
"""Parameters that all sites encrypt, to just so many ciphertexts with the number of rows; larger sums are scaled."""


@dataclass(frozen=True)
class Cost:
    """Of one sum: the processor's seconds of a site, of the coordinator, and of the site that decrypts, for its part in
    that alone; bytes that a site sends."""

    site: float
    coordinator: float
    decryption: float
    sent: int


class Meter:
    """The processor's seconds since the last look, charged to whoever worked."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._begun = time.process_time()

    def charge(self, who: str) -> None:
        """Add what was spent since the last look."""
        now = time.process_time()
        self.spent[who] += now - self._begun
        self._begun = now


@lru_cache
def one_sum(parameters: int, sites: int, dropouts: int) -> Cost:
    """A whole sum, whose total is compared with the plain one. dropouts: sites that take no part but for their keys."""
    names = [f"site-{number:03}" for number in range(sites)]
    keys = {name: SigningKey.generate() for name in names}
    parties = {name: key.verify_key for name, key in keys.items()}
    opening = Opening(bytes(32), bytes(32), sites)
    session = session_of("0" * 64, "run", opening)
    encoder = Encoder(WeightedDelta, sites, _BOUND)
    sessions = {name: EncryptionSession(session, name, keys[name], parties, sites) for name in names}
    roster_keys = {name: sessions[name].advertise(()) for name in names}
    meter, sum_ = Meter(), EncryptedSum(session, opening.nonce, sites)
    roster = sum_.roster_of(roster_keys)
    meter.charge("coordinator")
    dealt = sessions[names[0]].deal(roster)
    meter.charge("others")
    sum_.take_keys(names[0], dealt)
    meter.charge("coordinator")

    update = np.random.default_rng(0).standard_normal(parameters, np.float32)
    left = names[: sites - dropouts]
    measured, sent = left[-1], 0
    for number, name in enumerate(left):
        contribution = WeightedDelta(update * np.float32(1 + number % 3), 100)
        question = sum_.question(name, contribution)
        meter.charge("others")
        sessions[name].receive(question)
        part = sessions[name].encrypted(contribution, encoder)
        meter.charge("site" if name == measured else "others")
        sent = sum(map(len, parts(part)))
        meter.charge("others")
        sum_.take(name, part, part.digest(), encoder)
        meter.charge("coordinator")
    statements = sum_.statements()
    meter.charge("coordinator")
    agreed = []
    for name in left:
        agreed.append(sessions[name].agree(statements).signature)
        meter.charge("site" if name == measured else "others")
    into = np.empty(sum_.shape, np.uint8)
    sum_.add(into)
    meter.charge("coordinator")
    total = sessions[measured].decrypt(Decryption(opening.nonce, tuple(left), tuple(agreed), into), encoder)
    meter.charge("decryption")
    _check(total, update, len(left), encoder)
    return Cost(meter.spent["site"], meter.spent["coordinator"], meter.spent["decryption"], sent)


def _check(total: Message, update: NDArray[np.float32], sites: int, encoder: Encoder) -> None:
    assert isinstance(total, WeightedDelta) and total.rows == 100 * sites
    exact = update.astype(np.float64) * sum(1 + number % 3 for number in range(sites))
    error = encoder.error(Layout.of(total))["delta"]
    assert np.abs(total.delta - exact).max() <= error + 1e-5, "the total is not that of the contributions"


def measured_sum(parameters: int, sites: int, dropouts: int) -> tuple[Cost, str]:
    """The cost, and what was measured: the whole sum, or one of fewer parameters; all but the keys scales."""
    if parameters <= _AT_MOST:
        return one_sum(parameters, sites, dropouts), "whole"
    part, keys = one_sum(_AT_MOST, sites, dropouts), one_sum(1, sites, dropouts)
    scale = parameters / _AT_MOST

    def scaled(small: float, fixed: float) -> float:
        return fixed + max(small - fixed, 0.0) * scale

    cost = Cost(
        scaled(part.site, keys.site),
        scaled(part.coordinator, keys.coordinator),
        scaled(part.decryption, keys.decryption),
        round(scaled(part.sent, keys.sent)),
    )
    return cost, f"scaled from {_AT_MOST:,} parameters"


def one_site(parameters: int) -> tuple[float, int]:
    """The processor's seconds in which one site encrypts so many parameters, and the bytes that come of it."""
    encoder = Encoder(WeightedDelta, 10, _BOUND)
    update = WeightedDelta(np.random.default_rng(0).standard_normal(parameters, np.float32), 100)
    key = SecretKey.generate()
    begun = time.process_time()
    words = words_of(encoder.encode(update))
    tag = Authenticator(bytes(32), b"").tag("site", words)
    part = Encrypted(Layout.of(update), key.encrypt(words), tag, b"")
    part.digest()
    return time.process_time() - begun, part.ciphertexts.nbytes


def encryption_rows(parameters: Sequence[int], sites: Sequence[int], masked: dict[str, float]) -> list[Row]:
    """The rows. masked: the values of the rows of secure aggregation by name, beside which these stand."""
    rows = []
    for size in parameters:
        seconds, sent = one_site(size)
        rows.append(Row(f"he/{size}/encryption", seconds, "s", None, None, f"one site, measured whole: {sent} bytes"))
        for count in sites:
            for dropouts in (0, count // 5):
                cost, how = measured_sum(size, count, dropouts)
                name = f"{count}/{size}/{dropouts}"
                found = {"site": (cost.site, "s"), "coordinator": (cost.coordinator, "s")}
                for who, (value, unit) in (found | {"bytes": (cost.sent / size, "bytes")}).items():
                    peer = masked.get(f"secagg/{name}/{who}")
                    ratio = None if not peer else value / peer
                    told = "" if peer is None else f"masking: {peer:.4f} {unit}; "
                    rows.append(Row(f"he/{name}/{who}", value, unit, ratio, None, told + how))
                rows.append(Row(f"he/{name}/decryption", cost.decryption, "s", None, None, "at one site; " + how))
    return rows
