"""Large arrays are gone through by two threads, whose halves together are the whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfed.core import halves
from medfed.core.halves import in_halves
from medfed.core.messages import Message, add, adds


@dataclass(frozen=True, eq=False)
class Summed(Message, wire="tests.halves.summed"):
    values: NDArray[np.float32] = adds(bound=1e6)


def _met(both: threading.Barrier) -> None:
    both.wait()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few elements be many."""
    monkeypatch.setattr(halves, "LARGE", 2)


@given(size=st.integers(0, 50))
def test_each_element_is_worked_on_once(size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halves, "LARGE", 2)
        visits = np.zeros(size, int)

        def visit(part: slice) -> None:
            visits[part] += 1

        in_halves(visit, size)
    assert visits.tolist() == [1] * size


@pytest.mark.usefixtures("small")
def test_two_threads_work_side_by_side_and_none_is_left() -> None:
    before, both = threading.active_count(), threading.Barrier(2, timeout=10)
    in_halves(lambda part: _met(both), 10)
    assert threading.active_count() == before


def test_few_elements_are_worked_on_by_the_caller() -> None:
    threads: list[threading.Thread] = []
    in_halves(lambda part: threads.append(threading.current_thread()), halves.LARGE - 1)
    assert threads == [threading.current_thread()]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("start", [0, 5])
def test_what_either_half_raises_is_raised(start: int) -> None:
    def fail(part: slice) -> None:
        if part.start == start:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_halves(fail, 10)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [2, 7, 3_000_001])
def test_totals_are_the_same_bits_as_numpys(size: int) -> None:
    first, second = np.random.default_rng(size).standard_normal((2, size), np.float32)
    total = add(add(None, Summed(first)), Summed(second))
    np.testing.assert_array_equal(total.values, first + second)
    assert not np.shares_memory(total.values, first)
