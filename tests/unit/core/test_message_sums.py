from __future__ import annotations

import math
from dataclasses import dataclass

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


def test_the_first_contribution_is_the_total():
    first = totals()
    assert add(None, first) is first


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


def test_two_messages_cannot_share_a_name_on_the_wire():
    with pytest.raises(TypeError, match="share the wire name"):

        @dataclass(frozen=True)
        class Impostor(Message, wire="test.sums.totals"):
            rows: int

    assert message_type("test.sums.totals") is Totals


def test_a_name_that_no_installed_code_defines_is_refused():
    with pytest.raises(CodecError, match="no installed message"):
        message_type("test.sums.nothing")
