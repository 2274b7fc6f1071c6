"""Missing markers that are numbers match however a file writes them."""

import pytest

from medfed.data.columns import with_missing
from medfed.data.kinds import objects


@pytest.mark.parametrize("written", ["-9", " -9", "-9.0", "-9.00"])
def test_a_numeric_marker_matches_every_spelling_of_its_number(written: str) -> None:
    values = objects([written, "9", "-90", None, "text"])
    assert with_missing(values, ("-9",)).tolist() == [None, "9", "-90", None, "text"]


def test_a_marker_with_a_leading_zero_is_a_code_and_not_a_number() -> None:
    assert with_missing(objects(["09", "9"]), ("09",)).tolist() == [None, "9"]
