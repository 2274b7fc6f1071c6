"""Invented people whose names are as unevenly common as real ones, and typing errors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from medfed.privacy.bloom import Encoding, Field, Records

_STARTS = ["ka", "be", "mor", "sil", "ta", "van", "go", "fri", "lu", "hen", "dra", "po", "wil", "as", "ro", "mi"]
_MIDDLES = ["", "ra", "len", "ti", "mo", "ber", "ga", "nus"]
_ENDS = ["son", "mann", "ek", "ova", "ini", "sen", "ski", "er"]
SURNAMES = ["".join(parts) for parts in itertools.product(_STARTS, _MIDDLES, _ENDS)]
FIRST_NAMES = ["".join(parts) for parts in itertools.product(_STARTS, ["", "ri", "li", "na"], ["a", "us", "en", "o"])]
CITIES = ["".join(parts) for parts in itertools.product(_STARTS, ["burg", "ville", "ford", "stad", "ow"])]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

ENCODING = Encoding(
    "lungs", (Field("first name", 14), Field("surname", 14), Field("birth date", 12), Field("city", 8)), buckets=8
)


@dataclass(frozen=True)
class Person:
    first: str
    surname: str
    born: str
    city: str


def _drawn(names: list[str], count: int, draw: np.random.Generator) -> list[str]:
    shares = 1 / np.arange(1, len(names) + 1) ** 0.8
    return [names[place] for place in draw.choice(len(names), count, p=shares / shares.sum())]


def people(count: int, seed: int) -> list[Person]:
    """Different people; the first of each list of names is the commonest (Zipf, exponent 0.8)."""
    draw = np.random.default_rng(seed)
    found: dict[Person, None] = {}
    while len(found) < count:
        days = draw.integers(0, 365 * 60, count)
        dates = [str(np.datetime64("1940-01-01") + int(day)) for day in days]
        names = (_drawn(listed, count, draw) for listed in (FIRST_NAMES, SURNAMES, CITIES))
        found |= dict.fromkeys(Person(f, s, b, c) for f, s, c, b in zip(*names, dates, strict=True))
    return list(found)[:count]


def mistyped(person: Person, draw: np.random.Generator) -> Person:
    """The person with one letter of a name or the city left out, added, changed, or exchanged with the next."""
    which = ("first", "surname", "city")[draw.integers(3)]
    text = getattr(person, which)
    at, letter = int(draw.integers(len(text) - 1)), LETTERS[draw.integers(26)]
    wrong = (
        text[:at] + text[at + 1 :],
        text[:at] + letter + text[at:],
        text[:at] + letter + text[at + 1 :],
        text[:at] + text[at + 1] + text[at] + text[at + 2 :],
    )[draw.integers(4)]
    return replace(person, **{which: wrong})


def records(crowd: list[Person]) -> Records:
    columns = tuple([getattr(person, name) for person in crowd] for name in ("first", "surname", "born", "city"))
    return Records(columns, [person.born[:4] for person in crowd])
