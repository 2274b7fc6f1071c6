from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import mmap
import pickle
import struct
import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_values import ACCEPTED_DTYPES, TEXT, arrays, installed_messages, messages, same

from medfed.core.codec import decode, encode, fingerprint, parts
from medfed.core.errors import CodecError
from medfed.core.messages import Message, Vector

START = 16
"""Where the header begins: after the magic and the header's length."""


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, eq=False)
class Leaf(Message, wire="test.codec.leaf"):
    number: float
    name: str | None


@dataclass(frozen=True, eq=False)
class Everything(Message, wire="test.codec.everything"):
    truth: bool
    whole: int
    real: float
    text: str
    raw: bytes
    colour: Colour
    perhaps: float | None
    vector: Vector
    leaf: Leaf
    any_message: Message
    names: tuple[str, ...]
    nested: tuple[tuple[int, ...], ...]
    leaves: tuple[Leaf, ...]
    vectors: tuple[Vector, ...]


@dataclass(frozen=True, eq=False)
class Chain(Message, wire="test.codec.chain"):
    link: Message | None


@dataclass(frozen=True, eq=False)
class Single(Message, wire="test.codec.single"):
    value: Any


@dataclass(frozen=True, eq=False)
class Array(Message, wire="test.codec.array"):
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Texts(Message, wire="test.codec.texts"):
    value: str


@dataclass(frozen=True, eq=False)
class Real(Message, wire="test.codec.real"):
    value: float


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT

SAMPLE = Everything(
    True,
    -(2**66),
    -0.0,
    "Krankenhaus \0 “Ü” 病院 😀",
    b"\0\xff",
    Colour.GREEN,
    None,
    np.array([1.5, -0.0, np.nan], np.float32),
    Leaf(float("-inf"), None),
    Leaf(float("nan"), ""),
    ("a", "ß"),
    ((1, 2), ()),
    (Leaf(5e-324, "x"),),
    (np.empty(0, np.float32), np.ones((2, 1), np.float32)),
)


DATA = encode(SAMPLE)


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON header, and the buffers from the first one's beginning."""
    (length,) = struct.unpack_from("<Q", data, 8)
    end = START + length
    return json.loads(data[START:end]), data[end + -end % 64 :]


def with_header(header: Any, buffers: bytes = b"") -> bytes:
    """Bytes with a header of one's own, its buffers aligned as the format wants."""
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    text = header if isinstance(header, bytes) else json.dumps(header, **compact).encode("utf-8", "surrogatepass")
    padding = bytes(-(START + len(text)) % 64) if buffers else b""
    return b"MEDFED1\0" + struct.pack("<Q", len(text)) + text + padding + buffers


def decodes_or_refuses(data: bytes, kind: type[Message]) -> None:
    with contextlib.suppress(CodecError):
        assert isinstance(decode(data, kind), kind)


# ------------------------------------------------------------------------------------------ round trip


def test_a_message_of_every_field_type_comes_back_to_the_bit():
    assert same(decode(encode(SAMPLE), Everything), SAMPLE)


@given(messages(Everything))
def test_drawn_messages_come_back_to_the_bit(message):
    assert same(decode(encode(message), Everything), message)


@given(st.sampled_from(ACCEPTED_DTYPES).flatmap(arrays))
def test_arrays_of_every_accepted_type_and_shape_come_back_to_the_bit(array):
    decoded = decode(encode(Array(array)), Array).value
    assert same(decoded, array)
    assert not decoded.flags.writeable


@pytest.mark.parametrize("kind", installed_messages(), ids=lambda kind: kind.WIRE)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_installed_message_comes_back_to_the_bit(kind, data):
    message = data.draw(messages(kind))
    assert same(decode(encode(message), kind), message)
    assert same(decode(encode(message), Message), message)


def test_strided_transposed_and_big_endian_arrays_arrive_with_their_values():
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    for array in (base.T, base[::2, ::-3], base.astype(">f8"), np.asfortranarray(base)):
        decoded = decode(encode(Array(array)), Array).value
        assert decoded.dtype.str == "<f8"
        np.testing.assert_array_equal(decoded, array)


def test_numpy_scalars_become_python_scalars():
    assert same(decode(encode(Leaf(np.float32(0.5), "x")), Leaf), Leaf(0.5, "x"))  # type: ignore[arg-type]


def test_buffers_are_aligned_to_64_bytes():
    data = encode(Array(np.full(3, 7.0)))
    assert data.index(np.full(3, 7.0).tobytes()) % 64 == 0


def test_decoded_arrays_cannot_be_written():
    decoded = decode(encode(SAMPLE), Everything)
    with pytest.raises(ValueError, match="read-only"):
        decoded.vector[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        decoded.vector.flags.writeable = True


# ------------------------------------------------------------------------------------------ without copies


@given(messages(Everything))
def test_the_parts_together_are_the_encoding(message):
    assert b"".join(parts(message)) == encode(message)


def test_the_parts_of_arrays_are_views():
    array = np.arange(1000, dtype=np.float32)
    (view,) = [part for part in parts(Array(array)) if len(part) == array.nbytes]
    assert np.shares_memory(np.frombuffer(view, np.float32), array)


@given(messages(Everything), st.integers(0, 3))
def test_a_message_written_into_shared_memory_is_read_from_there(message, place):
    offset, size = 64 * place, len(encode(message))
    shared = mmap.mmap(-1, offset + size + 5)
    shared[offset : offset + size] = encode(message)
    assert same(decode(memoryview(shared)[offset : offset + size], Everything), message)


@given(messages(Everything))
def test_bytes_of_any_kind_decode_alike(message):
    data = encode(message)
    mapped = mmap.mmap(-1, len(data))
    mapped[:] = data
    for buffer in (data, bytearray(data), memoryview(data), memoryview(bytearray(data)), mapped):
        assert same(decode(buffer, Everything), message)


def test_decoded_arrays_are_read_only_views_even_into_memory_that_can_be_written():
    data = bytearray(encode(Array(np.zeros(4))))
    decoded = decode(data, Array).value
    with pytest.raises(ValueError, match="WRITEABLE"):
        decoded.flags.writeable = True
    data[-8:] = struct.pack("<d", 7.0)
    assert decoded.tolist() == [0.0, 0.0, 0.0, 7.0]


@given(messages(Everything))
def test_a_message_passes_through_pickle_with_its_fields_alone(message):
    fingerprint(message)
    copy = pickle.loads(pickle.dumps(message, protocol=5))
    assert same(copy, message)
    assert copy.__dict__.keys() == {field.name for field in dataclasses.fields(message)}


@given(messages(Everything))
def test_a_fingerprint_is_of_the_encoding(message):
    found = fingerprint(message)
    assert (found.bytes, found.sha256) == (len(encode(message)), hashlib.sha256(encode(message)).hexdigest())


def test_a_fingerprint_is_formed_once_and_is_no_part_of_the_message():
    message = Array(np.zeros(3))
    plain = encode(message)
    assert fingerprint(message) is fingerprint(message)
    assert encode(message) == plain
    assert fingerprint(dataclasses.replace(message, value=np.ones(3))) != fingerprint(message)


@given(st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8))
def test_the_header_is_the_compact_json_of_the_fields(value):
    """Python's own writer of JSON is the oracle."""
    data = encode(Single(value))
    (length,) = struct.unpack_from("<Q", data, 8)
    content = {"message": {"type": "test.codec.single", "fields": {"value": value}}, "buffers": []}
    expected = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    assert data[START : START + length] == expected


# ------------------------------------------------------------------------------------------ what is not sent


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        {"a": 1},
        {1, 2},
        1j,
        object(),
        print,
        np.array(["a"]),
        np.array([object()]),
        np.array([1j]),
        np.zeros(2, np.float16),
        np.zeros(2, "datetime64[s]"),
        np.float64(1).astype(np.longdouble),
        np.zeros(2, [("a", "<f4")]),
        np.zeros((1,) * 9),
        "lone surrogate \ud800",
        10**5000,
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_values_of_other_types_are_not_sent(value):
    with pytest.raises(CodecError):
        encode(Single(value))


# ------------------------------------------------------------------------------------------ mutated bytes


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(CodecError):
        decode(data, Everything)


@given(st.binary(max_size=200))
def test_random_headers_are_refused(text):
    with pytest.raises(CodecError):
        decode(with_header(text), Everything)


@settings(max_examples=400)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_decoded_or_refused(index, change):
    mutated = bytearray(DATA)
    mutated[index] ^= change
    decodes_or_refuses(bytes(mutated), Everything)


@given(st.integers(0, len(DATA) - 1))
def test_truncated_bytes_are_refused(length):
    with pytest.raises(CodecError):
        decode(DATA[:length], Everything)


@given(st.binary(min_size=1, max_size=100))
def test_bytes_at_the_end_are_refused(more):
    with pytest.raises(CodecError):
        decode(DATA + more, Everything)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 10**400, -(10**400), 2**63, 2**64])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", "nan", "inf", "<f8", "test.codec.leaf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every node of a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


PLACES = places(header_of(DATA)[0])


@settings(max_examples=800)
@given(st.sampled_from(PLACES), JSON)
def test_a_header_with_any_node_replaced_is_decoded_or_refused(path, replacement):
    header, buffers = header_of(DATA)
    if path:
        node = header
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = replacement
    else:
        header = replacement
    decodes_or_refuses(with_header(header, buffers), Everything)


def test_the_header_of_the_mutations_is_right_as_long_as_nothing_is_replaced():
    assert same(decode(with_header(*header_of(DATA)), Everything), SAMPLE)


@pytest.mark.parametrize("path", [path for path in PLACES[1:] if isinstance(path[-1], str)], ids=str)
def test_a_header_with_any_key_missing_is_refused(path):
    header, buffers = header_of(DATA)
    node = header
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    with pytest.raises(CodecError):
        decode(with_header(header, buffers), Everything)


# ------------------------------------------------------------------------------------------ hand-made headers


def array_header(dtype: Any = "<f8", shape: Any = (0,)) -> dict[str, Any]:
    return {
        "message": {"type": "test.codec.array", "fields": {"value": {"array": 0}}},
        "buffers": [[dtype, list(shape) if isinstance(shape, tuple) else shape]],
    }


@pytest.mark.parametrize(
    "shape",
    [
        (2**60,),
        (2**31, 2**31),
        (2**60, 0),
        (0, 2**62, 2**62, 2**62),
        (2**70,),
        (-1,),
        (-1, -8),
        (1.0,),
        (True,),
        ("1",),
        None,
        1,
        "11",
        {},
        (1,) * 9,
        (1,) * 100,
        (2,),
    ],
    ids=str,
)
def test_a_shape_that_the_bytes_do_not_hold_is_refused_before_anything_is_allocated(shape):
    data = with_header(array_header(shape=shape), bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(data, Array)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["|O", "|V8", "<U2", "<c16", "<M8[s]", ">f8", "f8", "", None, 3, [], {}], ids=str)
def test_an_array_of_another_type_is_refused(dtype):
    with pytest.raises(CodecError):
        decode(with_header(array_header(dtype, (1,)), bytes(8)), Array)


def test_the_hand_made_header_is_right_where_it_is_not_made_wrong():
    assert decode(with_header(array_header(shape=(1,)), bytes(8)), Array).value.tolist() == [0.0]


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**26 + 1, 100])
def test_a_header_longer_than_the_message_is_refused(length):
    with pytest.raises(CodecError, match="longer than the message"):
        decode(b"MEDFED1\0" + struct.pack("<Q", length) + b"{}", Everything)


def leaf_header(**changes: Any) -> dict[str, Any]:
    return {"message": {"type": "test.codec.leaf", "fields": {"number": 1.0, "name": "x"}, **changes}, "buffers": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "no.such.message"},
        {"type": "os.system"},
        {"type": None},
        {"type": []},
        {"type": "test.codec.chain"},
        {"fields": {"number": 1.0}},
        {"fields": {"number": 1.0, "name": "x", "more": 1}},
        {"fields": {"number": 1.0, "other": "x"}},
        {"fields": {"number": "1.0", "name": "x"}},
        {"fields": {"number": True, "name": "x"}},
        {"fields": {"number": None, "name": "x"}},
        {"fields": {"number": 10**400, "name": "x"}},
        {"fields": {"number": 1.0, "name": 1}},
        {"fields": {"number": 1.0, "name": "\ud800"}},
        {"fields": ["number", "name"]},
        {"fields": None},
    ],
    ids=str,
)
def test_unknown_types_unknown_or_missing_fields_and_wrong_types_are_refused(changes):
    with pytest.raises(CodecError):
        decode(with_header(leaf_header(**changes)), Leaf)


@pytest.mark.parametrize("index", [1, -1, 0.0, "0", None, True, 10**30], ids=str)
def test_a_reference_to_an_array_that_did_not_come_is_refused(index):
    header = array_header(shape=(1,))
    header["message"]["fields"]["value"] = {"array": index}
    with pytest.raises(CodecError):
        decode(with_header(header, bytes(8)), Array)


def test_a_field_of_float32_does_not_take_float64():
    header, rest = header_of(encode(Array(np.zeros(2))))
    header["message"] = {"type": "fedavg.weights", "fields": {"weights": {"array": 0}}}
    from medfed.algorithms.fedavg import Weights

    with pytest.raises(CodecError, match="float32"):
        decode(with_header(header, rest), Weights)


def test_a_message_of_another_kind_than_asked_is_refused():
    with pytest.raises(CodecError, match=r"Chain was expected, not a Leaf"):
        decode(encode(Leaf(1.0, None)), Chain)


def test_deep_nesting_is_refused_and_shallow_nesting_is_not():
    def chain(depth: int) -> Message:
        message = Chain(None)
        for _ in range(depth):
            message = Chain(message)
        return message

    assert same(decode(encode(chain(20)), Chain), chain(20))
    with pytest.raises(CodecError, match="nested too deeply"):
        decode(encode(chain(60)), Chain)
    with pytest.raises(CodecError):
        decode(with_header(b'{"message":' * 100_000), Chain)


def test_a_list_bomb_as_header_is_refused():
    with pytest.raises(CodecError):
        decode(with_header(b"[" * 1_000_000), Leaf)


def test_only_one_form_of_a_header_is_accepted():
    """No extra key, array that nothing refers to, array that two fields share, or other spelling gets through."""
    right = {"message": {"type": "test.codec.real", "fields": {"value": 3.0}}, "buffers": []}
    assert decode(with_header(right), Real).value == 3.0
    wrong = [
        {**right, "more": 1},
        {**right, "message": {**right["message"], "more": 1}},
        {**right, "buffers": [["|u1", [1]]]},
        {"message": {"type": "test.codec.real", "fields": {"value": 3}}, "buffers": []},
        {"buffers": [], "message": right["message"]},
    ]
    for header in wrong:
        with pytest.raises(CodecError):
            decode(with_header(header, bytes(len(header["buffers"]))), Real)
    with pytest.raises(CodecError):
        decode(with_header(json.dumps(right).encode()), Real)
