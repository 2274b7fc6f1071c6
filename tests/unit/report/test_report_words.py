from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.report.canvas import shortened
from medfed.report.words import bound, by_importance, count, duration, listed, markdown, number, plural, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8574, "0.857"),
        (0, "0.000"),
        (-0.25, "−0.250"),
        (12.345, "12.35"),
        (54321.0, "54,321"),
        (0.00012, "1.2e−04"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-9, 10))
def test_a_rounded_bound_is_still_a_bound(error: float) -> None:
    assert error <= float(bound(error)) + 1e-9
    assert float(bound(error)) - error <= 1e-3


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (41_230, "41.2 kB"),
        (999_960, "1.0 MB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_bytes_are_told_in_thousands(n: int, text: str) -> None:
    assert size(n) == text


def test_words() -> None:
    assert count(None) == "withheld"
    assert count(0) == "0"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert plural(1, "round") == "1 round"
    assert plural(3, "strategy", spell=True) == "three strategies"
    assert duration(3.44) == "3.4 s"
    assert duration(125) == "2 min 5 s"
    assert by_importance(["loss", "custom", "accuracy", "auc"]) == ("auc", "accuracy", "custom", "loss")


@given(st.text(max_size=60))
def test_a_shortened_label_fits_and_stays_on_one_line(label: str) -> None:
    short = shortened(label, 90.0)
    assert len(short) <= 90 / 6
    assert short.splitlines() in ([], [short])


def test_markdown_shows_text_as_it_is() -> None:
    assert markdown("<b>*a*</b>|b\n# c") == "&lt;b&gt;\\*a\\*&lt;/b&gt;\\|b \\# c"
