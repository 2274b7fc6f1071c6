"""Set intersection and record linkage: what finding common patients costs one party, and the linkage unit.

    python -m benchmarks.intersection --json intersection.json

- ``psi/count``, ``psi/match``: one party's own work for each of its identifiers, until it knows how many are in common,
  and until it knows which; beside the two X25519 operations for each that nothing can do without.
- ``linkage/encode``: a site's work for each record, from text to a hardened filter; ``linkage/pair``: the linkage
  unit's for each pair of records of one bucket. The records are random letters, with more different q-grams than names.

Seconds are the processor's: one thread. Both parties have as many identifiers, half of them in common.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.rows import Row, report
from medfed.privacy.bloom import Encoded, Encoding, Field, Records, encoded
from medfed.privacy.linkage import Rules, link
from medfed.privacy.psi import Party, Sizes, Terms, Witness

T = TypeVar("T")


class Clock:
    """Processor seconds of one party, while its calls are made by :meth:`timed`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[[], T]) -> T:
        """What the call gives; its time is added."""
        begun = time.process_time()
        given = call()
        self.seconds += time.process_time() - begun
        return given


def intersection(size: int) -> tuple[float, float, int]:
    """Seconds of the first party until it knows how many, and until it knows which; and how many."""
    key, clock = secrets.token_bytes(32), Clock()
    sizes = Sizes(1, size)
    signing = Ed25519PrivateKey.generate()
    witness = Witness(signing.sign, lambda signature, message: True, lambda project, session: True)

    def party(name: str, peer: str, first: int) -> Party:
        terms = Terms("benchmark", "one", name, peer, key, sizes, sizes, least_common=1)
        return Party(terms, [f"patient {n}" for n in range(first, first + size)], witness)

    ours, theirs = clock.timed(lambda: party("north", "south", 0)), party("south", "north", size // 2)
    committed, commitment = clock.timed(ours.commit), theirs.commit()
    blinded, their_blinded = clock.timed(lambda: ours.blind(commitment)), theirs.blind(committed)
    pledge, their_pledge = clock.timed(lambda: ours.pledge(their_blinded)), theirs.pledge(blinded)
    reply, their_reply = clock.timed(lambda: ours.reply(their_pledge)), theirs.reply(pledge)
    common = clock.timed(lambda: ours.count(their_reply)).common
    theirs.count(reply)
    counted = clock.seconds
    agreement, their_agreement = clock.timed(ours.agree), theirs.agree()
    clock.timed(lambda: ours.order(their_agreement))
    ordered = theirs.order(agreement)
    if len(clock.timed(lambda: ours.match(ordered)).rows) != common:
        raise RuntimeError("the two parts of an intersection differ")
    return counted, clock.seconds, common


def exchanges(count: int) -> float:
    """Seconds of as many X25519 operations, points and scalar being there."""
    scalar, point = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    begun = time.process_time()
    for _ in range(count):
        scalar.exchange(point)
    return time.process_time() - begun


def linkage(size: int) -> tuple[float, float]:
    """Seconds to encode as many records, and to link them with as many others, all in one bucket."""
    fields = (Field("first name", 14), Field("surname", 14), Field("birth date", 12), Field("city", 8))
    encoding, key = Encoding("benchmark", fields, buckets=1), secrets.token_bytes(32)

    def sent(party: str, first: int) -> Encoded:
        people = [secrets.token_hex(16) for _ in range(first, first + size)]
        columns = (
            [p[:7] for p in people],
            [p[7:15] for p in people],
            [p[15:25] for p in people],
            [p[25:] for p in people],
        )
        stable = [str(1940 + number % 60) for number in range(size)]
        return encoded(Records(columns, stable), encoding, key, session="one", party=party)

    clock = Clock()
    ours, theirs = clock.timed(lambda: sent("north", 0)), sent("south", size)
    encoding_seconds, clock.seconds = clock.seconds, 0.0
    # No record is like another: a pair is added, so that the unit has an answer.
    theirs.filters.filters[0] = ours.filters.filters[0]
    rules = Rules(threshold=0.76, least=1, most=size, least_links=1)
    clock.timed(lambda: link(ours.filters, theirs.filters, rules))
    return encoding_seconds, clock.seconds


def measure(identifiers: int, records: int) -> list[Row]:
    """The rows of one run."""
    counted, matched, _ = intersection(identifiers)
    floor = exchanges(2 * identifiers) / identifiers
    encode, compare = linkage(records)
    peer = f"two X25519 operations, {floor * 1e6:.1f} us"
    return [
        Row("psi/count", counted / identifiers, "s", counted / identifiers / floor, None, peer),
        Row("psi/match", matched / identifiers, "s", matched / identifiers / floor, None, peer),
        Row("linkage/encode", encode / records, "s", None, None, f"{records} records"),
        Row("linkage/pair", compare / records**2, "s", None, None, f"{records} by {records} records"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description="What set intersection and record linkage cost.")
    parser.add_argument("--identifiers", type=int, default=100_000, help="of each party of the intersection")
    parser.add_argument("--records", type=int, default=5_000, help="of each party of the linkage")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = measure(options.identifiers, options.records)
    return report(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
