from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import CodecError
from medfed.core.messages import (
    Adds,
    Counts,
    Message,
    Moments,
    Vector,
    add,
    additive_fields,
    adds,
    message_type,
    out_of_bounds,
)


@dataclass(frozen=True, eq=False)
class Totals(Message, wire="test.sums.totals"):
    rows: int = adds(bound=100)
    mean: float = adds(bound=2.0, resolution=2.0**-10)
    counts: Counts = adds(bound=1000)
    delta: Vector = adds(bound=5.0, resolution=2.0**-24)
    moments: Moments = adds(bound=1e12, resolution=2.0**-20)


@dataclass(frozen=True, eq=False)
class HalfDeclared(Message, wire="test.sums.half_declared"):
    rows: int = adds(bound=100)
    name: str = ""


def totals(rows=1, mean=0.5, counts=(1, 2), delta=(0.25,), moments=(1.0, 2.0, 3.0)) -> Totals:
    return Totals(rows, mean, np.array(counts, np.int64), np.array(delta, np.float32), np.array(moments))


def test_additive_fields_are_the_declarations():
    assert additive_fields(Totals)["mean"] == Adds(2.0, 2.0**-10)
    assert list(additive_fields(Totals)) == ["rows", "mean", "counts", "delta", "moments"]


def test_a_field_without_adds_cannot_be_summed():
    with pytest.raises(TypeError, match=r"HalfDeclared\.name"):
        additive_fields(HalfDeclared)
    with pytest.raises(TypeError, match=r"HalfDeclared\.name"):
        add(HalfDeclared(1, "a"), HalfDeclared(2, "b"))


def test_the_first_contribution_is_copied_into_a_total_that_can_be_written():
    first = totals(delta=(0.25, -0.0))
    for name in ("counts", "delta", "moments"):
        getattr(first, name).flags.writeable = False
    total = add(None, first)
    assert (total.rows, total.mean, total.delta.tobytes()) == (1, 0.5, first.delta.tobytes())
    total.delta[:] = 7.0
    assert first.delta.tolist() == [0.25, 0.0]


def test_the_next_contributions_are_added_in_place_and_stay_as_they_are():
    total, second = add(None, totals()), totals(delta=(1.0,))
    memory = total.delta
    total = add(total, second)
    assert total.delta is memory
    assert (memory.tolist(), second.delta.tolist()) == ([1.25], [1.0])


def test_a_refused_contribution_leaves_the_total_as_it_was():
    total = add(None, totals())
    with pytest.raises(CodecError):
        add(total, totals(counts=(10, 20), moments=(1.0,)))
    assert total.counts.tolist() == [1, 2]


def test_another_type_is_refused_rather_than_rounded():
    with pytest.raises(CodecError, match=r"Totals\.delta has another shape or type"):
        add(totals(), replace(totals(), delta=np.array([0.25])))


def test_adding_keeps_each_fields_own_type():
    total = add(totals(), totals(rows=2, mean=0.25, counts=(10, 20), delta=(1.0,), moments=(1.0, 1.0, 1.0)))
    assert (total.rows, type(total.rows), total.mean) == (3, int, 0.75)
    assert (total.counts.dtype, total.counts.tolist()) == (np.int64, [11, 22])
    assert (total.delta.dtype, total.delta.tolist()) == (np.float32, [1.25])
    assert (total.moments.dtype, total.moments.tolist()) == (np.float64, [2.0, 3.0, 4.0])


@given(st.lists(st.tuples(st.integers(-50, 50), st.lists(st.integers(0, 2**40), min_size=2, max_size=2)), min_size=1))
def test_counts_add_exactly_in_any_order(contributions):
    total = reverse = None
    for rows, counts in contributions:
        total = add(total, totals(rows=rows, counts=counts))
    for rows, counts in reversed(contributions):
        reverse = add(reverse, totals(rows=rows, counts=counts))
    assert total.rows == reverse.rows == sum(rows for rows, _ in contributions)
    assert total.counts.tolist() == reverse.counts.tolist() == [sum(c[i] for _, c in contributions) for i in (0, 1)]


@pytest.mark.parametrize("other", [(1.0, 2.0), (), ((1.0,),)], ids=str)
def test_another_shape_is_refused_rather_than_broadcast(other):
    with pytest.raises(CodecError, match=r"Totals\.delta has another shape"):
        add(totals(), totals(delta=other))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"rows": 100}, None),
        ({"rows": -100}, None),
        ({"rows": 101}, "rows"),
        ({"rows": -101}, "rows"),
        ({"mean": 2.0}, None),
        ({"mean": math.nextafter(2.0, 3.0)}, "mean"),
        ({"mean": math.nan}, "mean"),
        ({"mean": -math.inf}, "mean"),
        ({"counts": (0, -1001)}, "counts"),
        ({"counts": (0, -(2**63))}, "counts"),
        ({"counts": ()}, None),
        ({"delta": (1.0, np.nan)}, "delta"),
        ({"delta": (-5.5,)}, "delta"),
        ({"moments": (0.0, np.inf)}, "moments"),
        ({"moments": (1e12, -1e12)}, None),
        ({"rows": 101, "delta": (np.nan,)}, "rows"),
    ],
    ids=str,
)
def test_the_first_field_beyond_its_bound_is_named(changes, field):
    assert out_of_bounds(totals(**changes)) == field


@dataclass(frozen=True, eq=False)
class Unbounded(Message, wire="test.sums.unbounded"):
    values: Vector = adds(bound=math.inf)
    value: float = adds(bound=math.inf)


@given(
    st.integers(1, 200_000), st.integers(0, 199_999), st.sampled_from([np.nan, np.inf, -np.inf, 5.5, -5.5, 5.0, -5.0])
)
def test_one_element_beyond_the_bound_is_found_wherever_it_is(size, place, value):
    delta = np.zeros(size, np.float32)
    delta[place % size] = value
    assert out_of_bounds(replace(totals(), delta=delta)) == (None if abs(value) == 5.0 else "delta")


def test_what_is_not_finite_is_out_of_every_bound():
    largest = float(np.finfo(np.float32).max)
    assert out_of_bounds(Unbounded(np.array([largest, -largest], np.float32), 1e308)) is None
    for wrong in (math.nan, math.inf, -math.inf):
        assert out_of_bounds(Unbounded(np.array([0.0, wrong], np.float32), 0.0)) == "values"
        assert out_of_bounds(Unbounded(np.zeros(1, np.float32), wrong)) == "value"


def test_numpy_scalars_and_tables_are_held_to_their_bounds_too():
    assert out_of_bounds(replace(totals(), rows=np.int64(101))) == "rows"
    assert out_of_bounds(replace(totals(), mean=np.float32(2.5))) == "mean"
    assert out_of_bounds(replace(totals(), counts=np.array([[1, 2], [3, 1001]]).T)) == "counts"
    assert out_of_bounds(replace(totals(), rows=np.int64(100), mean=np.float32(2.0))) is None


def test_two_messages_cannot_share_a_name_on_the_wire():
    with pytest.raises(TypeError, match="share the wire name"):

        @dataclass(frozen=True)
        class Impostor(Message, wire="test.sums.totals"):
            rows: int

    assert message_type("test.sums.totals") is Totals


def test_a_name_that_no_installed_code_defines_is_refused():
    with pytest.raises(CodecError, match="no installed message"):
        message_type("test.sums.nothing")
