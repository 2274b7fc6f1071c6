"""Fixed point against exact fractions, at the bounds, and for layouts that somebody made up."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfed.core.errors import CodecError, DataError
from medfed.core.messages import Adds, Counts, Message, Moments, Vector, adds
from medfed.privacy.ring import Encoder, Layout, add_into, fixed
from medfed.privacy.secagg.coordinator import Unmasking
from medfed.privacy.secagg.messages import Masked
from medfed.privacy.wide import row_of, signed


@dataclass(frozen=True, eq=False)
class Mixed(Message, wire="test.ring.mixed"):
    """Fields of all types, of which each ring has some."""

    delta: Vector = adds(bound=2.0**20, resolution=2.0**-10)
    moments: Moments = adds(bound=2.0**30, resolution=2.0**-24)
    counts: Counts = adds(bound=2.0**20)
    many: Counts = adds(bound=2.0**40)
    squares: Moments = adds(bound=2.0**80, resolution=2.0**-20)
    loss: float = adds(bound=2.0**10, resolution=2.0**-16)
    spread: float = adds(bound=2.0**90, resolution=2.0**-30)
    rows: int = adds(bound=2.0**31)
    all_rows: int = adds(bound=2.0**100)


NAMES = ["delta", "moments", "counts", "many", "squares", "loss", "spread", "rows", "all_rows"]
BOUNDS = [2.0**20, 2.0**30, 2.0**20, 2.0**40, 2.0**80, 2.0**10, 2.0**90, 2.0**31, 2.0**100]
RESOLUTIONS = [2.0**-10, 2.0**-24, 1, 1, 2.0**-20, 2.0**-16, 2.0**-30, 1, 1]
TYPES: list[Any] = [np.float32, np.float64, np.int64, np.int64, np.float64, float, float, int, int]


def mixed(shape: tuple[int, ...] = (2,), value: float = 1.0, **changed: Any) -> Mixed:
    values = {
        name: np.full(shape, value, kind) if kind not in (int, float) else kind(value)
        for name, kind in zip(NAMES, TYPES, strict=True)
    }
    return Mixed(**{**values, **changed})


def summed(encoder: Encoder, parts: list[Message]) -> Any:
    """Encode each, add up, decode: a secure sum without its masks."""
    total = encoder.encode(parts[0])
    for each in parts[1:]:
        add_into(total, encoder.encode(each))
    return encoder.decode(total, Layout.of(parts[0]))


def exact(values: list[Any]) -> list[Fraction]:
    """The sum of each element, in fractions."""
    flat = [[Fraction(v) for v in np.asarray(each, object).reshape(-1).tolist()] for each in values]
    return [sum(column, Fraction()) for column in zip(*flat, strict=True)]


def close(found: Any, wanted: list[Fraction], error: float) -> bool:
    """Within the stated error, and half a step of the type that a total is given in."""
    values = np.asarray(found)
    flat = values.reshape(-1).tolist()
    slack = [0.0] * len(flat)
    if values.dtype.kind == "f":
        slack = np.abs(np.spacing(values.reshape(-1))).tolist()
    return len(flat) == len(wanted) and all(
        abs(Fraction(value) - right) <= Fraction(error) + Fraction(half) / 2
        for value, right, half in zip(flat, wanted, slack, strict=True)
    )


def drawn(data: st.DataObject, kind: Any, bound: float, shape: tuple[int, ...]) -> Any:
    width = 32 if kind is np.float32 else 64
    if kind in (int, np.int64):
        elements: Any = st.integers(-int(bound), int(bound))
    else:
        elements = st.floats(-bound, bound, width=width)
    if kind in (int, float):
        return kind(data.draw(elements))
    size = math.prod(shape)
    return np.array(data.draw(st.lists(elements, min_size=size, max_size=size)), kind).reshape(shape)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 5), st.sampled_from([(), (0,), (3,), (2, 2), (1, 2, 1), (3, 0)]))
def test_a_total_is_within_its_stated_error_of_the_exact_sum(
    data: st.DataObject, sites: int, shape: tuple[int, ...]
) -> None:
    parts = [
        Mixed(*(drawn(data, kind, bound, shape) for kind, bound in zip(TYPES, BOUNDS, strict=True)))
        for _ in range(sites)
    ]
    encoder = Encoder(Mixed, sites)
    total, stated = summed(encoder, list(parts)), encoder.error(Layout.of(parts[0]))
    assert encoder.beyond(total, sites) is None
    for name, resolution, kind in zip(NAMES, RESOLUTIONS, TYPES, strict=True):
        whole = kind in (int, np.int64)
        assert stated[name] == (0 if whole else sites * resolution / 2)
        found = getattr(total, name)
        assert close(found, exact([getattr(each, name) for each in parts]), stated[name]), name
        if kind in (int, float):
            assert type(found) is kind
        else:
            assert (found.shape, found.dtype) == (shape, np.dtype(kind))


def test_a_large_float32_total_is_off_by_its_own_rounding_besides() -> None:
    """What the docstring of Encoder.error leaves out: a total is rounded to its type, too."""
    encoder, big = Encoder(Mixed, 3), 2.0**20 - 2.0**-4
    parts = [mixed(delta=np.array([big, 1.0], np.float32)) for _ in range(3)]
    found = float(summed(encoder, list(parts)).delta[0])
    assert abs(found - 3 * big) <= 3 * 2.0**-11 + float(np.spacing(np.float32(found))) / 2


@dataclass(frozen=True, eq=False)
class Updates(Message, wire="test.ring.updates"):
    """A network's update."""

    delta: Vector = adds(bound=2.0**40, resolution=2.0**-16)


@settings(max_examples=150)
@given(st.data(), st.integers(1, 1000), st.floats(2.0**-40, 2.0**30))
def test_a_tighter_bound_puts_updates_into_32_bits(data: st.DataObject, sites: int, largest: float) -> None:
    encoder = Encoder(Updates, sites, largest)
    within = float(np.nextafter(np.float32(largest), np.float32(0)))
    few = [np.array([drawn(data, float, within, ()) for _ in range(4)], np.float32) for _ in range(min(sites, 3))]
    parts: list[Message] = [Updates(values) for values in few]
    layout = Layout.of(parts[0])
    (_, point, _, _), *_ = encoder.fields(layout)
    assert point.bits == 32
    assert encoder.sizes(layout) == {32: (4,), 64: (0,), 256: (0, 4)}
    assert sites * math.ceil(largest / point.resolution) < 2**31
    assert math.frexp(point.resolution)[0] == 0.5
    assert point.resolution <= sites * largest / 2**29
    assert close(summed(encoder, parts).delta, exact(few), encoder.error(layout)["delta"])


@pytest.mark.parametrize("largest", [1e-9, 1e-20, 1e-30, 1e-36])
def test_a_bound_as_small_as_a_task_may_set_it_is_summed(largest: float) -> None:
    """TaskSpec's update_bound is any positive number; 1/resolution must not overflow float32."""
    encoder = Encoder(Updates, 3, largest)
    parts: list[Message] = [Updates(np.array([largest / 2, -largest / 4], np.float32)) for _ in range(3)]
    found = summed(encoder, parts).delta
    assert close(found, exact([each.delta for each in parts]), encoder.error(Layout.of(parts[0]))["delta"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("sites", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_all_sites_at_their_bounds_overflow_no_ring(sites: int, sign: int) -> None:
    encoder = Encoder(Mixed, sites)
    values = {
        name: np.full(2, sign * bound, kind) if kind not in (int, float) else kind(sign * bound)
        for name, kind, bound in zip(NAMES, TYPES, BOUNDS, strict=True)
    }
    total = encoder.encode(Mixed(**values))
    one = {bits: part.copy() for bits, part in total.items()}
    for _ in range(sites - 1):
        add_into(total, one)
    found = encoder.decode(total, Layout.of(Mixed(**values)))
    for name, bound in zip(NAMES, BOUNDS, strict=True):
        wanted = Fraction(sign * sites) * Fraction(bound)
        assert all(
            Fraction(value) == wanted or abs(float(Fraction(value) / wanted) - 1) < 2**-23
            for value in np.asarray(getattr(found, name)).reshape(-1).tolist()
        ), name
    assert encoder.beyond(found, sites) is None
    assert sites == 1 or encoder.beyond(found, sites - 1) is not None


@given(
    st.floats(2.0**-20, 2.0**200),
    st.one_of(st.just(0.0), st.integers(-60, 60).map(lambda power: 2.0**power)),
    st.integers(1, 5000),
)
def test_the_ring_is_the_narrowest_that_holds_the_sum_of_all_sites(bound: float, resolution: float, sites: int) -> None:
    steps = sites * math.ceil(Fraction(bound) / Fraction(resolution or 1))
    if steps >= 2**255:
        with pytest.raises(ValueError, match="fit no ring"):
            fixed(Adds(bound, resolution), sites, np.float64)
        return
    point = fixed(Adds(bound, resolution), sites, np.float64)
    assert steps < 2 ** (point.bits - 1)
    assert point.bits in (32, 64, 256)
    assert point.bits == 32 or steps >= 2 ** ({64: 32, 256: 64}[point.bits] - 1)
    assert point.error == sites * resolution / 2


BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("name", NAMES)
def test_a_value_beyond_its_bound_is_refused_by_the_name_of_its_field_alone(name: str) -> None:
    kind, bound = TYPES[NAMES.index(name)], BOUNDS[NAMES.index(name)]
    outside: list[Any] = [1.5 * bound, -1.5 * bound]
    if kind in (float, np.float32, np.float64):
        outside += BAD
        outside += [float(np.nextafter(kind(bound) if kind is not float else bound, math.inf))]
    else:
        outside += [int(bound) + 1, -int(bound) - 1]
    for value in outside:
        if kind in (int, float):
            part: Any = kind(value)
        else:
            part = np.array([[0, 1], [value, 2]], kind)
        with pytest.raises(DataError, match=f"'{name}'") as error:
            Encoder(Mixed, 3).encode(mixed(**{name: part}))
        assert f"{abs(value):g}" == f"{bound:g}" or f"{abs(value):g}" not in error.value.cause
        assert "nan" not in error.value.cause


def test_a_value_beyond_its_bound_is_found_wherever_it_is() -> None:
    """Among more elements than are rounded at a time."""
    for place in (0, 2**16 - 1, 2**16, 2**17 + 4):
        values = np.zeros(2**17 + 5, np.float32)
        values[place] = math.nan
        with pytest.raises(DataError, match="'delta'"):
            Encoder(Mixed, 3).encode(mixed(delta=values))


@dataclass(frozen=True, eq=False)
class AtTheEdge(Message, wire="test.ring.at_the_edge"):
    """A bound that is no float32, and of which as many as sites are just within 64 bits."""

    delta: Vector = adds(bound=2.0**62 - 512, resolution=1.0)


@dataclass(frozen=True, eq=False)
class CountsAtTheEdge(Message, wire="test.ring.counts_at_the_edge"):
    """Of three sites' counts at the bound the sum is just within 64 bits."""

    counts: Counts = adds(bound=float(2**63 // 3 // 512 * 512))


def test_float32_values_just_beyond_a_bound_that_is_no_float32_do_not_overflow() -> None:
    """2^62 is beyond the bound by 512, though NumPy compares it with the bound rounded to float32."""
    part = AtTheEdge(np.array([2.0**62], np.float32))
    with pytest.raises(DataError, match="'delta'"):
        Encoder(AtTheEdge, 2).encode(part)


def test_counts_just_beyond_a_bound_do_not_overflow() -> None:
    """NumPy compares int64 with a float as floats, and so do 255 more than the bound pass."""
    bound = 2**63 // 3 // 512 * 512
    with pytest.raises(DataError, match="'counts'"):
        Encoder(CountsAtTheEdge, 3).encode(CountsAtTheEdge(np.array([bound + 255], np.int64)))


def test_a_whole_number_in_a_field_of_fractions_is_that_number() -> None:
    """A site may give a Python int, or an array of int64, for a field with a resolution: ``sum([])`` is one."""
    encoder = Encoder(Mixed, 3)
    for name in ("loss", "spread"):
        assert getattr(summed(encoder, [mixed(**{name: 5})] * 3), name) == 15
    for name in ("moments", "squares"):
        total = summed(encoder, [mixed(**{name: np.array([5, 7], np.int64)})] * 3)
        assert getattr(total, name).tolist() == [15, 21]


def test_a_total_beyond_what_sites_can_give_is_found() -> None:
    encoder = Encoder(Mixed, 3)
    for name, kind, bound in zip(NAMES, TYPES, BOUNDS, strict=True):
        for value in (2.001 * bound + 10, -2.001 * bound - 10):
            total = kind(value) if kind in (int, float) else np.array([0, value], kind)
            assert encoder.beyond(mixed(**{name: total}), 2) == name
            assert encoder.beyond(mixed(**{name: total}), 3) is None
    assert encoder.beyond(mixed(loss=math.nan), 3) == "loss"
    assert encoder.beyond(mixed((0,)), 3) is None


# ---------------------------------------------------------------------------------------------------- layouts


def shapes(*each: Any) -> tuple[NDArray[np.int64], ...]:
    return tuple(np.array(shape, np.int64) for shape in each)


def update_layout(shape: Any, kind: str = "<f4") -> Layout:
    return Layout(shapes(shape), (kind,))


@pytest.mark.parametrize(
    "layout",
    [
        Layout((), ()),
        Layout(shapes((1,)), ()),
        Layout((), ("<f4",)),
        Layout(shapes((1,), (1,)), ("<f4", "<f4")),
        update_layout((1,), "<f2"),
        update_layout((1,), "<u8"),
        update_layout((1,), ">f4"),
        update_layout((1,), "|O"),
        update_layout((1,), "float32"),
        update_layout((1,), "no type"),
        update_layout((-1,)),
        update_layout((-1, -1)),
        update_layout((2, -(2**62))),
        Layout.of(mixed()),
    ],
    ids=lambda layout: str(layout.types),
)
def test_a_layout_that_is_not_its_kinds_is_refused(layout: Layout) -> None:
    with pytest.raises(CodecError):
        Encoder(Updates, 3).sizes(layout)


@pytest.mark.parametrize("shape", [5, [[2, 3]], [[2], [3]], [[]]], ids=str)
def test_a_layout_whose_shape_is_no_list_of_numbers_is_refused(shape: Any) -> None:
    """On the wire a shape is an array, of any dimensions."""
    masked = Masked(update_layout(shape), np.zeros(6, np.uint32), np.zeros(6, np.uint64), np.zeros((0, 4), np.uint64))
    with pytest.raises(CodecError):
        Unmasking(bytes(32), bytes(32), 3).add("site", masked, Encoder(Updates, 3))


@pytest.mark.parametrize("shape", [(2**62,), (2**40, 2**40), (2**31, 1), (3,), (0,), (), (2, 3)], ids=str)
def test_a_layout_of_other_elements_than_came_is_refused_and_takes_no_memory(shape: tuple[int, ...]) -> None:
    five = Encoder(Updates, 3, 1.0).encode(Updates(np.zeros(5, np.float32)))
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="elements of its layout"):
            Unmasking(bytes(32), bytes(32), 3).add(
                "site", Masked.of(update_layout(shape), five), Encoder(Updates, 3, 1.0)
            )
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


def test_elements_of_other_shapes_or_types_are_not_added() -> None:
    encoder = Encoder(Mixed, 3)
    total = encoder.encode(mixed())
    for bits, part in total.items():
        for other in (part[:-1], part.astype(np.int64), np.concatenate([part, part])):
            with pytest.raises(CodecError, match="elements of its layout"):
                add_into({b: p.copy() for b, p in total.items()}, {**total, bits: other})


def test_a_layout_says_the_shape_and_type_of_each_field() -> None:
    layout = Layout.of(mixed((2, 3)))
    assert layout.types == ("<f4", "<f8", "<i8", "<i8", "<f8", "", "", "", "")
    assert [shape.tolist() for shape in layout.shapes] == 5 * [[2, 3]] + 4 * [[]]
    assert layout.same_as(Layout.of(mixed((2, 3), 5.0)))
    others = [mixed((3, 2)), mixed((6,)), mixed((2, 3, 1)), mixed((2, 3), moments=np.zeros((2, 3), np.float32))]
    assert not any(layout.same_as(Layout.of(other)) for other in others)
    assert Encoder(Mixed, 3).sizes(layout) == {32: (6 + 1,), 64: (6 + 6 + 6 + 1,), 256: (6 + 1 + 1, 4)}


def test_elements_are_whole_steps_rounded_to_the_nearest_even() -> None:
    encoder = Encoder(Mixed, 3)
    values = np.array([0.5, 1.5, -0.5, -1.5, 2.4, -2.6]) * 2.0**-24
    rings = encoder.encode(mixed((0,), moments=values))
    assert rings[64].view(np.int64)[:6].tolist() == [0, 2, 0, -2, 2, -3]
    spread = encoder.encode(mixed((0,), spread=-3.0 * 2.0**-30))[256]
    assert -3 in [signed(row) for row in spread]
    assert np.array_equal(row_of(-3), next(row for row in spread if signed(row) == -3))
