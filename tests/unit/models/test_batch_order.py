from __future__ import annotations

from itertools import islice

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from medfed.core.rng import generator
from medfed.models.batches import Position, batch_table, batches, updates_per_epoch

ROWS, SIZES = st.integers(1, 40), st.integers(1, 50)


def stream(rows: int, size: int, start: Position | None = None):
    return batches(rows, size, start or Position(), lambda epoch: generator(0, "order", epoch))


@given(ROWS, SIZES)
def test_every_epoch_visits_each_row_once_and_its_last_batch_alone_is_smaller(rows, size):
    count = -(-rows // size)
    assert updates_per_epoch(rows, size) == count
    drawn = list(islice(stream(rows, size), 3 * count))
    for epoch in range(3):
        of_epoch = [batch for batch, _ in drawn[epoch * count : (epoch + 1) * count]]
        assert sorted(np.concatenate(of_epoch)) == list(range(rows))
        assert [len(batch) for batch in of_epoch[:-1]] == [size] * (count - 1)
        assert len(of_epoch[-1]) == rows - size * (count - 1)


@given(ROWS, SIZES, st.integers(1, 30))
def test_going_on_from_any_position_gives_the_same_continuation(rows, size, pause):
    unbroken = list(islice(stream(rows, size), pause + 20))
    resumed = list(islice(stream(rows, size, unbroken[pause - 1][1]), 20))
    for (batch, after), (expected, expected_after) in zip(resumed, unbroken[pause:], strict=True):
        np.testing.assert_array_equal(batch, expected)
        assert after == expected_after


@given(ROWS, SIZES, SIZES, st.integers(1, 10))
def test_another_batch_size_goes_on_with_the_rows_that_were_not_visited(rows, size, other, pause):
    """A position counts rows, not batches: as long as both sizes shuffle, an epoch is still every row once."""
    assume(max(size, other) < rows)
    before = list(islice(stream(rows, size), pause))
    start = before[-1][1]
    visited = [batch for batch, after in before if after.epoch == start.epoch and after.offset > 0]
    assume(start.offset > 0)
    rest = []
    for batch, after in stream(rows, other, start):
        rest.append(batch)
        if after.epoch > start.epoch:
            break
    assert sorted(np.concatenate([*visited, *rest])) == list(range(rows))


def test_epochs_differ_in_order_and_follow_their_generator():
    drawn = [batch for batch, _ in islice(stream(20, 5), 8)]
    first, second = np.concatenate(drawn[:4]), np.concatenate(drawn[4:])
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(first, generator(0, "order", 0).permutation(20))
    np.testing.assert_array_equal(second, generator(0, "order", 1).permutation(20))


def test_a_batch_of_all_rows_is_in_their_own_order():
    for size in (6, 7):
        assert next(stream(6, size))[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_positions_are_those_after_the_batch():
    assert [after for _, after in islice(stream(5, 2), 4)] == [
        Position(0, 2),
        Position(0, 4),
        Position(1, 0),
        Position(1, 2),
    ]


@given(ROWS, SIZES, st.integers(0, 30), st.integers(1, 30))
def test_a_table_holds_the_batches_of_the_stream_from_any_position(rows, size, pause, updates):
    size = min(size, rows)
    drawn = list(islice(stream(rows, size), pause + updates))
    start = drawn[pause - 1][1] if pause else Position()
    table = batch_table(rows, size, start, lambda epoch: generator(0, "order", epoch), updates)
    assert table.index.shape == (updates, size)
    assert table.after == drawn[-1][1]
    for row, count, (batch, _) in zip(table.index, table.counts, drawn[pause:], strict=True):
        np.testing.assert_array_equal(row[:count], batch)
        assert not row[count:].any()


def test_a_table_from_beyond_the_last_row_begins_the_next_epoch():
    """A site may have lost rows since the position was noted."""
    table = batch_table(4, 3, Position(2, 9), lambda epoch: generator(0, "order", epoch), updates=1)
    np.testing.assert_array_equal(table.index[0], next(stream(4, 3, Position(3, 0)))[0])
    assert table.after == Position(3, 3)
