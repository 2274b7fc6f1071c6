"""What sites send to a linkage unit, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfed.core.messages import Message


@dataclass(frozen=True, eq=False)
class Filters(Message, wire="linkage.filters"):
    """A party's records as hardened Bloom filters, shuffled; a record's number is its place here.

    check: HMAC-SHA-256 of the session and the encoding under the key: equal at both parties, or nothing is compared.
    filters: uint8 (n, bytes of one filter).
    buckets: int32 (n,), keyed hashes of the stable attribute; records of different buckets are never compared.
    """

    project: str
    session: str
    party: str
    check: bytes
    filters: NDArray[np.uint8]
    buckets: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Links(Message, wire="linkage.links"):
    """records: int64 (pairs,), a party's record in each pair. A pair's number is its place here, the same at both."""

    project: str
    session: str
    party: str
    records: NDArray[np.int64]
