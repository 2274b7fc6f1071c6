"""The one spelling of an identifier, and what is counted of those that cannot be used."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import DataError
from medfed.privacy.identifiers import InputReport, normalised, prepared

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("  Müller ", "müller"),
        ("Mu\u0308ller", "MÜLLER"),
        ("STRASSE", "straße"),
        ("ﬁsher", "FISHER"),
        ("１２３", "123"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("\u1fb7", "\u0391\u0342\u0345"),
        ("\u00a0943 476 5919\u3000", "943 476 5919"),
    ],
)
def test_spellings_of_one_identifier_are_one(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("943 476", "943476"), ("Müller", "Mueller"), ("A-1", "A1"), ("01", "1")])
def test_what_a_hospital_tells_apart_stays_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(TEXT)
def test_a_spelling_is_its_own_and_that_of_all_its_canonical_forms(text: str) -> None:
    spelled = normalised(text)
    assert normalised(spelled) == spelled
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normalised(unicodedata.normalize(form, text)) == spelled


def test_missing_and_repeated_rows_are_counted_and_the_first_stands() -> None:
    inputs = prepared(["B", None, "a", " b ", "", "\u3000", "A", "c"], drop_missing=True)
    assert inputs.identifiers == ("b", "a", "c")
    assert inputs.rows == (0, 2, 7)
    assert inputs.report == InputReport(given=8, used=3, missing=3, duplicates=2)


def test_neither_refusals_nor_reports_quote_an_identifier() -> None:
    with pytest.raises(DataError) as missing:
        prepared(["SECRET-7", None], drop_missing=False)
    with pytest.raises(DataError) as surrogate:
        prepared(["SECRET-7", "SECRET-8\ud800"], drop_missing=True)
    with pytest.raises(DataError) as number:
        prepared(["SECRET-7", 9434765919], drop_missing=True)  # type: ignore[list-item]
    assert "1 of 2 identifiers are missing" in str(missing.value)
    for error in (missing.value, surrogate.value, number.value):
        assert "SECRET" not in str(error) and "9434765919" not in str(error)
        assert error.__cause__ is None and error.__context__ is None
    assert "SECRET-7".casefold() not in repr(prepared(["SECRET-7"], drop_missing=True))
