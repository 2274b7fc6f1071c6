"""Hardened Bloom filters against filters written out bit by bit, and against attacks on unhardened ones."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.privacy.people import ENCODING, SURNAMES, people, records

from medfed.core.codec import encode
from medfed.core.errors import DataError, Refused, UserError
from medfed.privacy.bloom import Encoding, Field, Records, encoded, flipped, folded, qgrams
from medfed.privacy.identifiers import InputReport
from medfed.privacy.linkage import dice
from medfed.privacy.linkage_messages import Links

KEY = bytes(range(32))
WORDS = st.text("abcß1- ", max_size=6)


def written_out(record: tuple[str, ...], encoding: Encoding) -> set[int]:
    """The folded positions of a record, by sets of Python."""

    def frame(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    stable, *values = record
    unfolded: set[int] = set()
    for field, value in zip(encoding.fields, values, strict=True):
        if not value:
            continue
        text = "\0" * (field.q - 1) + value + "\0" * (field.q - 1)
        label = frame(b"medfed.linkage.field", encoding.project.encode(), field.name.encode())
        key = hmac.new(KEY, label, "sha256").digest()
        for start in range(len(text) - field.q + 1):
            stream = hmac.new(key, frame(stable.encode(), text[start : start + field.q].encode()), "sha512").digest()
            for number in range(field.hashes):
                unfolded.add(int.from_bytes(stream[2 * number : 2 * number + 2], "little") % encoding.bits)
    half = encoding.bits // 2
    return {place for place in range(half) if (place in unfolded) != (place + half in unfolded)}


@settings(max_examples=40)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=5), st.integers(8, 12), st.integers(1, 3), st.integers(1, 32))
def test_filters_are_those_written_out(rows: list[tuple[str, ...]], bits: int, q: int, hashes: int) -> None:
    encoding = Encoding("p", (Field("a", hashes, q), Field("b", 3)), bits=2**bits)
    filters = folded(rows, encoding, KEY)
    assert filters.shape == (len(rows), 2**bits // 16)
    for row, bits_set in zip(rows, np.unpackbits(filters, axis=1), strict=True):
        assert set(np.flatnonzero(bits_set).tolist()) == written_out(row, encoding)


def test_many_records_are_as_each_by_itself() -> None:
    rows = [(str(n % 7), f"name{n}", "", "x", str(n)) for n in range(1500)]
    together = folded(rows, ENCODING, KEY)
    for n in (0, 1023, 1024, 1499):
        assert np.array_equal(together[n : n + 1], folded(rows[n : n + 1], ENCODING, KEY))


@pytest.mark.parametrize(
    ("value", "q", "grams"),
    [
        ("eve", 2, {"\0e", "ev", "ve", "e\0"}),
        ("aaa", 2, {"\0a", "aa", "a\0"}),
        ("ab", 3, {"\0\0a", "\0ab", "ab\0", "b\0\0"}),
        ("ab", 1, {"a", "b"}),
        ("", 2, set()),
    ],
)
def test_qgrams(value: str, q: int, grams: set[str]) -> None:
    assert qgrams(value, q) == grams


@pytest.mark.parametrize("rate", [2**-10, 2**-6, 0.125, 0.25])
def test_bits_are_flipped_at_their_stated_rate(rate: float) -> None:
    before = np.full((2500, 128), 0b10101010, np.uint8)
    changes = np.unpackbits(before ^ flipped(before, rate), axis=1)
    total = changes.size
    assert abs(changes.sum() - rate * total) < 5 * math.sqrt(total * rate * (1 - rate))
    by_column = (changes.sum(axis=0) - rate * 2500) ** 2 / (2500 * rate * (1 - rate))
    assert abs(by_column.sum() - 1024) < 6 * math.sqrt(2 * 1024 + 1024 / (2500 * rate))  # χ² of 1024 columns
    again = np.unpackbits(before ^ flipped(before, rate), axis=1)
    both = (changes & again).sum()
    assert abs(both - rate**2 * total) < 6 * math.sqrt(total * rate**2) + 1


@pytest.mark.parametrize("rate", [2**-10, 2**-6, 3 * 2**-16 + 2**-8, 0.25])
def test_of_all_that_may_be_drawn_just_the_stated_share_flips_a_bit(
    monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    every = np.arange(2**16, dtype="<u2").tobytes()
    monkeypatch.setattr("secrets.token_bytes", lambda count: {len(every): every}[count])
    assert np.bitwise_count(flipped(np.zeros((64, 128), np.uint8), rate)).sum() == rate * 2**16


def test_epsilon_of_a_qgram() -> None:
    encoding = replace(ENCODING, flip=0.25)
    assert math.isclose(encoding.epsilon(Field("a", 10)), 10 * math.log(3))


def test_a_wrong_key_makes_the_same_people_strangers() -> None:
    crowd = records(people(600, seed=1))
    first = encoded(crowd, ENCODING, KEY, session="one", party="north")
    right, wrong = (encoded(crowd, ENCODING, key, session="one", party="south") for key in (KEY, b"\1" * 32))
    by_row = [sent.filters.filters[np.argsort(sent.rows)] for sent in (first, right, wrong)]
    same, strangers = dice(by_row[0], by_row[1]), dice(by_row[0], by_row[2])
    shuffled = dice(by_row[0], np.roll(by_row[2], 300, axis=0))
    assert same.min() > 0.85
    assert strangers.max() < 0.55
    assert abs(strangers.mean() - shuffled.mean()) < 4 * math.sqrt((strangers.var() + shuffled.var()) / 600)
    assert right.filters.check == first.filters.check != wrong.filters.check


@pytest.mark.parametrize(
    "other",
    [
        replace(ENCODING, project="hearts"),
        replace(ENCODING, bits=1024),
        replace(ENCODING, flip=0.125),
        replace(ENCODING, buckets=9),
        replace(ENCODING, fields=(*ENCODING.fields[:3], Field("city", 9))),
    ],
)
def test_another_encoding_has_another_check(other: Encoding) -> None:
    crowd = records(people(2, seed=1))
    checks = {encoded(crowd, e, KEY, session="one", party="north").filters.check for e in (ENCODING, other)}
    checks.add(encoded(crowd, ENCODING, KEY, session="two", party="north").filters.check)
    assert len(checks) == 3


# Attacks on frequencies


def plain_filter(name: str, hashes: int = 10, bits: int = 1000) -> bytes:
    """Schnell, Bachteler and Reiher 2009: double hashing of bigrams, without salt, folding or flips."""
    filled = np.zeros(bits, np.uint8)
    for gram in qgrams(name, 2):
        one, two = (
            int.from_bytes(hmac.new(KEY, gram.encode(), digest).digest(), "little") for digest in ("sha1", "md5")
        )
        for number in range(hashes):
            filled[(one + number * two) % bits] = 1
    return np.packbits(filled).tobytes()


def test_frequencies_of_patterns_name_the_commonest_name_in_plain_filters_and_not_in_hardened_ones() -> None:
    crowd = people(3000, seed=2)
    commonest, bearers = Counter(person.surname for person in crowd).most_common(1)[0]
    assert commonest == SURNAMES[0] and bearers > 60
    plain = Counter(plain_filter(person.surname) for person in crowd)
    pattern, seen = plain.most_common(1)[0]
    assert seen == bearers and pattern == plain_filter(commonest)

    surnames = replace(ENCODING, fields=(Field("surname", 14),))
    columns = Records(([f"{person.surname}" for person in crowd],), [person.born for person in crowd])
    hardened = encoded(columns, surnames, KEY, session="one", party="north").filters.filters
    assert max(Counter(row.tobytes() for row in hardened).values()) == 1


def most_telling_bit(bits: np.ndarray, bears: np.ndarray) -> float:
    """The largest |φ| of any bit with bearing a name: what an attacker who knew who bears it could learn at best."""
    centred = bits - bits.mean(axis=0)
    known = bears - bears.mean()
    scale = np.sqrt((centred**2).sum(axis=0) * (known**2).sum())
    return float(np.max(np.abs(known @ centred) / np.maximum(scale, 1e-9)))


def test_no_bit_of_a_hardened_filter_stands_for_the_commonest_name() -> None:
    crowd = people(3000, seed=3)
    bears = np.array([person.surname == SURNAMES[0] for person in crowd], float)
    plain = np.array([np.unpackbits(np.frombuffer(plain_filter(p.surname), np.uint8)) for p in crowd], float)
    sent = encoded(records(crowd), ENCODING, KEY, session="one", party="north")
    hardened = np.unpackbits(sent.filters.filters, axis=1).astype(float)
    assert most_telling_bit(plain, bears) > 0.4
    assert most_telling_bit(hardened, bears[sent.rows]) < 0.12
    chance = np.random.default_rng(4).permutation(bears)
    assert most_telling_bit(hardened, chance) < 0.12


def test_the_same_records_never_have_the_same_filters() -> None:
    crowd = records(people(200, seed=5))
    sent = [encoded(crowd, ENCODING, KEY, session="one", party="north") for _ in range(2)]
    one, other = ({row.tobytes() for row in s.filters.filters} for s in sent)
    assert one.isdisjoint(other)
    assert not np.array_equal(sent[0].rows, sent[1].rows)


# What goes in, and what comes back


def test_rows_that_cannot_be_used_are_counted() -> None:
    columns = (["Ann", " ann", "", None, "Bo", "Cy"], ["x", "X ", None, "", "y", "z"])
    encoding = Encoding("p", (Field("first", 5), Field("last", 5)))
    sent = encoded(
        Records(columns, ["1950", "1950", "1950", "1951", None, "1952"]), encoding, KEY, session="s", party="n"
    )
    assert sent.report == InputReport(given=6, used=2, missing=3, duplicates=1)
    assert sorted(sent.rows.tolist()) == [0, 5]


def test_buckets_are_keyed_and_the_same_for_the_same_stable_attribute() -> None:
    years = [str(1900 + n) for n in range(100)]
    names = [f"name {n}" for n in range(100)]
    encoding = Encoding("p", (Field("name", 5),))
    first = encoded(Records((names,), years), encoding, KEY, session="s", party="n")
    second = encoded(Records((names[::-1],), years), encoding, KEY, session="s", party="m")
    other = encoded(Records((names,), years), encoding, b"\1" * 32, session="s", party="n")
    by_row = [sent.filters.buckets[np.argsort(sent.rows)] for sent in (first, second, other)]
    assert np.array_equal(by_row[0], by_row[1]) and (by_row[0] != by_row[2]).sum() > 70
    assert {*by_row[0].tolist()} <= {*range(16)} and len({*by_row[0].tolist()}) > 10


def test_links_lead_back_to_the_given_rows() -> None:
    sent = encoded(records(people(5, seed=6)), ENCODING, KEY, session="one", party="north")
    assert sent.linked(Links("lungs", "one", "north", np.array([3, 0]))).tolist() == sent.rows[[3, 0]].tolist()
    for links in (
        Links("lungs", "two", "north", np.array([3, 0])),
        Links("lungs", "one", "south", np.array([3, 0])),
        Links("hearts", "one", "north", np.array([3, 0])),
        Links("lungs", "one", "north", np.array([3, 3])),
        Links("lungs", "one", "north", np.array([3, 5])),
        Links("lungs", "one", "north", np.array([-1])),
        Links("lungs", "one", "north", np.array([[1]])),
    ):
        with pytest.raises(Refused):
            sent.linked(links)


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": ()},
        {"fields": (Field("a", 1), Field("a", 2))},
        {"fields": (Field("a", 0),)},
        {"fields": (Field("a", 33),)},
        {"fields": (Field("a", 3, 0),)},
        {"bits": 1000},
        {"bits": 128},
        {"flip": 0.0},
        {"flip": 0.3},
        {"flip": 0.1},
        {"buckets": 0},
    ],
)
def test_encodings_that_protect_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        replace(ENCODING, **changes)


def test_neither_errors_nor_messages_quote_a_value_or_the_key() -> None:
    crowd = Records((["SECRET-1", "SECRET-2"],) * 4, ["1911", "1912"])
    errors = []
    for wrong, key in (
        (replace(crowd, stable=["1911"]), KEY),
        (replace(crowd, columns=crowd.columns[:3]), KEY),
        (replace(crowd, stable=["1911", "SECRET\ud800"]), KEY),
        (crowd, b"SECRET"),
    ):
        with pytest.raises((DataError, UserError)) as error:
            encoded(wrong, ENCODING, key, session="one", party="north")
        errors.append(str(error.value) + repr(error.value.__context__))
    sent = encoded(crowd, ENCODING, KEY, session="one", party="north")
    shown = repr((errors, crowd, sent)).casefold()
    assert not any(value in shown for value in ("secret-", "secret\\u", "b'secret", "1911"))
    assert hashlib.sha256(b"secret-1").digest() not in encode(sent.filters)
    assert b"secret" not in encode(sent.filters).lower() and KEY not in encode(sent.filters)
