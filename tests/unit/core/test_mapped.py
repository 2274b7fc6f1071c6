"""Going through a mapped array: the same values, and never all of it in memory."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.core.mapped import pieces
from medfed.core.messages import Message, Vector, add, adds, out_of_bounds


@dataclass(frozen=True, eq=False)
class Counted(Message, wire="test.mapped.counted"):
    values: Vector = adds(bound=2.0**40, resolution=1.0)


def resident(of: Path) -> int:
    """KiB of a mapped file that are in this process's memory."""
    found, here = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            here = str(of) in line
        elif here and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@given(st.integers(0, 3_000), st.integers(1, 500))
def test_the_pieces_are_the_array(size: int, most: int) -> None:
    array = np.arange(size)
    parts = [array[part] for part in pieces(array, most)]
    assert all(0 < len(part) <= most for part in parts)
    np.testing.assert_array_equal(np.concatenate([array[:0], *parts]), array)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_of_a_mapped_file_a_few_pages_are_in_memory_at_a_time(tmp_path: Path) -> None:
    array, path = np.arange(8 * 2**20, dtype=np.float32), tmp_path / "array"
    path.write_bytes(array.tobytes())
    with path.open("rb") as file:
        mapped = np.frombuffer(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[:], np.float32)
    total, most = 0.0, 0
    for number, part in enumerate(pieces(mapped, 2**16)):
        total += float(mapped[part].sum(dtype=np.float64))
        most = max(most, resident(path)) if number % 8 == 0 else most
    assert total == float(array.sum(dtype=np.float64))
    assert 0 < most < 6 * 2**10
    assert resident(path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_contribution_in_a_file_is_checked_and_added_without_being_in_memory(tmp_path: Path) -> None:
    values, path = np.arange(4 * 2**20, dtype=np.float32), tmp_path / "contribution"
    path.write_bytes(encode(Counted(values)))
    with path.open("rb") as file:
        contribution = decode(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), Counted)
    assert out_of_bounds(contribution) is None
    total = add(add(None, contribution), contribution)
    assert resident(path) < 2**10
    np.testing.assert_array_equal(total.values, 2 * values)
