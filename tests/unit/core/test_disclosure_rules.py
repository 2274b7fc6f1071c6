from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.disclosure import releasable, suppress_cells

CELLS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30), min_size=1)
MINIMA = st.integers(2, 12)


@pytest.mark.parametrize(
    ("count", "minimum", "shown"),
    [(0, 5, True), (1, 5, False), (4, 5, False), (5, 5, True), (6, 5, True), (0, 0, True), (1, 0, True), (1, 1, True)],
)
def test_a_count_is_shown_where_it_is_zero_or_reaches_the_minimum(count, minimum, shown):
    assert releasable(count, minimum) is shown


@given(CELLS, MINIMA, st.booleans())
def test_no_small_count_is_shown_and_no_shown_count_is_altered(cells, minimum, total_shown):
    shown = suppress_cells(cells, minimum, total_shown=total_shown)
    assert shown.keys() == cells.keys()
    for key, count in cells.items():
        assert shown[key] in ({None} if 0 < count < minimum else {None, count})
        if count == 0:
            assert shown[key] == 0


@given(CELLS, MINIMA)
def test_nothing_is_withheld_without_need(cells, minimum):
    small = [key for key, count in cells.items() if 0 < count < minimum]
    withheld = [key for key, count in suppress_cells(cells, minimum).items() if count is None]
    assert len(withheld) <= max(len(small), 2 * bool(small))
    alone = [key for key, count in suppress_cells(cells, minimum, total_shown=False).items() if count is None]
    assert sorted(alone) == sorted(small)


@st.composite
def one_small_cell(draw):
    """Cells of which one is below the minimum, with a total that may be shown; and the minimum."""
    minimum = draw(MINIMA)
    others = draw(st.lists(st.just(0) | st.integers(minimum, 30), max_size=4))
    counts = draw(st.permutations([draw(st.integers(1, minimum - 1)), draw(st.integers(minimum, 30)), *others]))
    return dict(zip("abcdef", counts, strict=False)), minimum


@given(one_small_cell())
def test_no_single_withheld_cell_can_be_computed_from_the_shown_ones_and_the_total(drawn):
    cells, minimum = drawn
    shown = suppress_cells(cells, minimum)
    withheld = [key for key, count in shown.items() if count is None]
    rest = sum(cells.values()) - sum(count or 0 for count in shown.values())
    assert len(withheld) == 2
    possible = {
        (one, rest - one)
        for one in range(rest + 1)
        if 0 < min(one, rest - one) < minimum or minimum <= min(one, rest - one)
    }
    assert tuple(cells[key] for key in withheld) in possible
    for place in (0, 1):
        assert len({solution[place] for solution in possible}) > 1


@given(st.integers(1, 4), st.lists(st.integers(5, 30), min_size=1, max_size=4))
def test_the_smallest_other_cell_is_withheld_with_the_small_one(small, others):
    cells = {"small": small, **{f"o{i}": count for i, count in enumerate(others)}}
    shown = suppress_cells(cells, 5)
    companion = next(key for key, count in shown.items() if count is None and key != "small")
    assert cells[companion] == min(others)
