"""Records as keyed, hardened Bloom filters, for record linkage in spite of typing errors: a site's half.

Schnell, Bachteler and Reiher 2009 (BMC Med Inform Decis Mak 9:41): the q-grams of a record's fields set bits, and
similar records have similar filters; all fields go into one filter, a field's weight being its number of hashes (their
cryptographic long-term key, 2011). Filters of that plain kind have been re-identified. Against this:

- random hashing: each q-gram's positions come from one HMAC-SHA-512 under a key of the field, and not from two hashes
  as i·h₁ + h₂ (Niedermeyer, Steinmetzer, Kroll and Schnell 2014, whose attack rests on these);
- a salt: the HMAC takes in a stable attribute, as the year of birth, so that a name has another pattern in each year
  (Niedermeyer et al. 2014, section 5). Records whose stable attributes differ are not found: take one without errors;
- XOR-folding: the halves of the filter are added bit by bit (Schnell and Borgs 2016);
- BLIP: each bit is flipped with a probability, by the system's cryptographic randomness (Alaggan, Gambs and Kermarrec
  2012), so that equal records have different filters.

Each sending of the same records flips anew, and whoever sees many can average the flips away: send a record once.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import DataError, Refused, UserError
from medfed.privacy.framing import framed
from medfed.privacy.identifiers import InputReport, is_text, normalised
from medfed.privacy.linkage_messages import Filters, Links

_RECORDS_AT_A_TIME = 1024
_HASHES = 32
_STEPS = 2**16


@dataclass(frozen=True)
class Field:
    """A field of a record. hashes: bits that each of its q-grams sets (1 to 32), its weight. q: letters of a q-gram."""

    name: str
    hashes: int
    q: int = 2


@dataclass(frozen=True)
class Encoding:
    """How records become filters; both parties agree on it, and the linkage unit sees its keyed hash alone.

    bits: of the filter before folding, a power of two; half as many are sent.
    flip: probability that a bit is flipped, a multiple of 2⁻¹⁶.
    buckets: into how many the stable attribute is hashed for blocking; 1 compares all. The linkage unit sees how many
        records a bucket has: few buckets, with several values each, tell it little.
    """

    project: str
    fields: tuple[Field, ...]
    bits: int = 2048
    flip: float = 2**-6
    buckets: int = 16

    def __post_init__(self) -> None:
        names = {field.name for field in self.fields}
        if not self.fields or len(names) != len(self.fields):
            raise UserError("a linkage has one field or more, each once")
        if not all(1 <= field.hashes <= _HASHES and 1 <= field.q <= 8 for field in self.fields):
            raise UserError(f"a field of a linkage has 1 to {_HASHES} hashes, and q-grams of 1 to 8 letters")
        if self.bits not in (2**n for n in range(8, 17)):
            raise UserError("a filter's bits are a power of two from 256 to 65536")
        if not 2**-10 <= self.flip <= 0.25 or (self.flip * _STEPS) % 1:
            raise UserError("bits are flipped with a probability from 2^-10 to 1/4, a multiple of 2^-16")
        if not 1 <= self.buckets <= _STEPS:
            raise UserError(f"a linkage has 1 to {_STEPS} buckets")

    def epsilon(self, field: Field) -> float:
        """The ε of local differential privacy for one q-gram of a field: hashes · ln((1 − flip) / flip).

        Of a whole record it is the sum over its q-grams, too much to promise anything: flips hinder, and do not hide.
        """
        return field.hashes * math.log((1 - self.flip) / self.flip)


@dataclass(frozen=True, eq=False)
class Records:
    """columns: one for each field of the encoding, in its order. stable: the attribute that salts and blocks."""

    columns: tuple[Sequence[str | None], ...] = field(repr=False)
    stable: Sequence[str | None] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Encoded:
    """filters: what is sent. rows: int64 (n,), the given row of each filter, which stays at the site."""

    filters: Filters
    rows: NDArray[np.int64] = field(repr=False)
    report: InputReport

    def linked(self, links: Links) -> NDArray[np.int64]:
        """The rows of the linkage unit's pairs: int64 (pairs,), the k-th row at both parties is one pair.

        Raises Refused where the answer is for another session or party, or names a record twice or one that is not.
        """
        sent, records = self.filters, links.records
        if (links.project, links.session, links.party) != (sent.project, sent.session, sent.party):
            raise Refused("the links are of another session, or for another party")
        if records.ndim != 1 or records.dtype != np.int64 or len(np.unique(records)) != len(records):
            raise Refused("the links name a record twice, or are none")
        if len(records) and not 0 <= records.min() <= records.max() < len(self.rows):
            raise Refused("the links name records that were not sent")
        return self.rows[records]


def encoded(records: Records, encoding: Encoding, key: bytes, *, session: str, party: str) -> Encoded:
    """The hardened filters of records, shuffled.

    Rows without a stable attribute, or without any field, are left out, and so are repeats. key: 32 bytes or more,
    which the two parties have and the linkage unit never gets. Raises UserError where it is shorter, and DataError,
    with counts alone, where columns differ in length or hold what is no text.
    """
    if len(key) < 32:
        raise UserError("a linkage's key has 32 bytes or more", remedy="draw it by secrets.token_bytes(32)")
    spelled, rows, report = _usable(records, encoding)
    order = list(range(len(rows)))
    secrets.SystemRandom().shuffle(order)
    shuffled = [spelled[index] for index in order]
    filters = flipped(folded(shuffled, encoding, key), encoding.flip)
    buckets = [_bucket(stable, encoding, key) for stable, *_ in shuffled]
    check = hmac.digest(key, framed(b"medfed.linkage.check", session.encode(), repr(encoding).encode()), "sha256")
    message = Filters(encoding.project, session, party, check, filters, np.array(buckets, np.int32))
    return Encoded(message, np.array([rows[index] for index in order], np.int64), report)


def folded(records: Sequence[tuple[str, ...]], encoding: Encoding, key: bytes) -> NDArray[np.uint8]:
    """Folded filters before bits are flipped: uint8 (n, bits / 16). They do not leave the site.

    records: normalised stable attribute, then the fields; an empty field sets no bit.
    """
    keys = [_derived(key, b"medfed.linkage.field", encoding, item.name) for item in encoding.fields]
    positions: dict[tuple[int, str, str], bytes] = {}
    parts = [
        _folded(records[start : start + _RECORDS_AT_A_TIME], encoding, keys, positions)
        for start in range(0, len(records), _RECORDS_AT_A_TIME)
    ]
    return np.concatenate(parts) if parts else np.empty((0, encoding.bits // 16), np.uint8)


def _folded(
    records: Sequence[tuple[str, ...]],
    encoding: Encoding,
    keys: Sequence[bytes],
    positions: dict[tuple[int, str, str], bytes],
) -> NDArray[np.uint8]:
    """``positions`` keeps what a q-gram sets, as uint16 one after the other, from one record to the next."""
    hashed: list[bytes] = []
    counts = []
    for stable, *values in records:
        count = 0
        for number, (item, value) in enumerate(zip(encoding.fields, values, strict=True)):
            for gram in qgrams(value, item.q):
                known = positions.get((number, stable, gram))
                if known is None:
                    text = framed(stable.encode(), gram.encode())
                    known = hmac.digest(keys[number], text, "sha512")[: 2 * item.hashes]
                    positions[number, stable, gram] = known
                hashed.append(known)
                count += item.hashes
        counts.append(count)
    bits = np.zeros((len(records), encoding.bits), np.uint8)
    places = np.frombuffer(b"".join(hashed), "<u2") & np.uint16(encoding.bits - 1)
    bits[np.repeat(np.arange(len(records)), counts), places] = 1
    half = encoding.bits // 2
    return np.packbits(bits[:, :half] ^ bits[:, half:], axis=1)


def qgrams(value: str, q: int) -> set[str]:
    """The q-grams of a value between q − 1 paddings at either end; none of an empty one."""
    padding = "\0" * (q - 1)
    padded = f"{padding}{value}{padding}"
    return {padded[start : start + q] for start in range(len(padded) - q + 1)} if value else set()


def flipped(filters: NDArray[np.uint8], rate: float) -> NDArray[np.uint8]:
    """Filters with each bit flipped independently with probability ``rate``, a multiple of 2⁻¹⁶ (BLIP)."""
    threshold = round(rate * _STEPS)
    noisy = np.empty_like(filters)
    for start in range(0, len(filters), _RECORDS_AT_A_TIME):
        part = filters[start : start + _RECORDS_AT_A_TIME]
        drawn = np.frombuffer(secrets.token_bytes(16 * part.size), "<u2").reshape(len(part), -1)
        noisy[start : start + _RECORDS_AT_A_TIME] = part ^ np.packbits(drawn < threshold, axis=1)
    return noisy


def _usable(records: Records, encoding: Encoding) -> tuple[list[tuple[str, ...]], list[int], InputReport]:
    """Normalised records (stable attribute first) without repeats, and their rows."""
    columns = (records.stable, *records.columns)
    given = len(records.stable)
    if len(records.columns) != len(encoding.fields) or any(len(column) != given for column in columns):
        raise DataError("a linkage needs one column for each field, as long as the stable attribute's")
    malformed = sum(value is not None and not is_text(value) for column in columns for value in column)
    if malformed:
        raise DataError(f"{malformed} values are not Unicode text", remedy="give each value as a str, or None")
    first: dict[tuple[str, ...], int] = {}
    missing = 0
    for row, values in enumerate(zip(*columns, strict=True)):
        spelled = tuple(normalised(value or "") for value in values)
        if spelled[0] and any(spelled[1:]):
            first.setdefault(spelled, row)
        else:
            missing += 1
    report = InputReport(given, len(first), missing, given - len(first) - missing)
    return list(first), list(first.values()), report


def _bucket(stable: str, encoding: Encoding, key: bytes) -> int:
    digest = hmac.digest(_derived(key, b"medfed.linkage.bucket", encoding, ""), stable.encode(), "sha256")
    return int.from_bytes(digest, "little") % encoding.buckets


def _derived(key: bytes, purpose: bytes, encoding: Encoding, name: str) -> bytes:
    return hmac.digest(key, framed(purpose, encoding.project.encode(), name.encode()), "sha256")
