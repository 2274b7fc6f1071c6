from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
from engine_parts import Ping, request
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medfed.engine.shared import SharedBuffer

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.bool_])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40)


@given(st.lists(st.lists(arrays.arrays(DTYPES, SHAPES), max_size=3), max_size=4), st.sampled_from([0, 100, math.inf]))
def test_what_is_packed_is_unpacked_to_the_bit(contents: list[list[Any]], copied_below: float) -> None:
    buffer = SharedBuffer()
    packed = [buffer.pack(content) for content in contents]
    for sent, each in zip(contents, packed, strict=True):
        got = buffer.unpack(each, copied_below=copied_below)
        assert [(a.dtype, a.shape, a.tobytes()) for a in got] == [(a.dtype, a.shape, a.tobytes()) for a in sent]
        assert all(offset % 64 == 0 for offset, _ in each.places)
    buffer.close()


def test_large_arrays_are_read_where_they_stand_and_small_ones_are_ones_own() -> None:
    buffer = SharedBuffer()
    packed = buffer.pack([np.ones(1000), np.ones(10)])
    large, small = buffer.unpack(packed, copied_below=1000)
    buffer.clear()
    buffer.pack([np.zeros(2000)])
    assert not large.any() and small.all()
    assert not large.flags.writeable and not small.flags.writeable


def test_it_grows_and_earlier_views_stay() -> None:
    buffer = SharedBuffer()
    (first,) = buffer.unpack(buffer.pack([np.arange(100)]), copied_below=0)
    (second,) = buffer.unpack(buffer.pack([np.arange(10**6)]), copied_below=0)
    assert (first == np.arange(100)).all() and (second == np.arange(10**6)).all()


def test_an_array_is_written_once_for_all_who_are_sent_it() -> None:
    buffer, vector = SharedBuffer(), np.arange(1000.0)
    first, second = buffer.pack([vector, "for one"]), buffer.pack([vector, "for another"])
    assert first.places == second.places
    buffer.clear()
    assert buffer.pack([np.zeros(3)]).places[0][0] == 0


@pytest.mark.parametrize("copied_below", [0, 400, math.inf])
def test_arrays_that_are_there_already_may_come_after_new_ones(copied_below: float) -> None:
    buffer, old, new = SharedBuffer(), np.arange(5.0), np.arange(100.0)
    columns = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    buffer.pack([old, columns])
    for content in ([new, old], [columns, new, old], [old, new]):
        got = buffer.unpack(buffer.pack(content), copied_below=copied_below)
        assert [a.tolist() for a in got] == [a.tolist() for a in content]


def test_requests_of_one_message_still_share_it() -> None:
    buffer, message = SharedBuffer(), Ping(3)
    got = buffer.unpack(buffer.pack([request(site=s, message=message) for s in "ab"]), copied_below=0)
    assert got[0].message is got[1].message
    assert [r.digest() for r in got] == [request(site=s, message=Ping(3)).digest() for s in "ab"]


def test_a_forked_process_reads_what_its_parent_wrote_later_and_the_other_way_round() -> None:
    ours, theirs = SharedBuffer(), SharedBuffer()
    to_child, to_parent = os.pipe(), os.pipe()
    content = np.random.default_rng(0).normal(size=10**6)
    if os.fork() == 0:
        import pickle

        (received,) = ours.unpack(pickle.loads(os.read(to_child[0], 10_000)), copied_below=0)
        os.write(to_parent[1], pickle.dumps(theirs.pack([received[::-1].copy()])))
        os._exit(0)
    import pickle

    os.write(to_child[1], pickle.dumps(ours.pack([content])))
    (answer,) = theirs.unpack(pickle.loads(os.read(to_parent[0], 10_000)), copied_below=math.inf)
    assert (answer == content[::-1]).all()
    os.wait()
    for end in (*to_child, *to_parent):
        os.close(end)
