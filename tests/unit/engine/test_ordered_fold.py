from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterable
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pytest
from engine_parts import Part, part
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError
from medfed.engine.fold import OrderedFold

SITES = [f"site {letter}" for letter in "abcdefgh"]
CONTRIBUTIONS = {site: part(1e8 / 3**k, (-1) ** k * 1.1, 1e-6 * k, rows=k + 1) for k, site in enumerate(SITES)}
"""Of such unlike size that a sum in another order has other bits."""

SIZE = max(each.values.nbytes + each.squares.nbytes for each in CONTRIBUTIONS.values())


def summed_in_order(sites: list[str]) -> tuple[bytes, bytes, int]:
    values, squares, rows = np.zeros(3, np.float32), np.zeros(3, np.float64), 0
    for site in sorted(sites):
        values = values + CONTRIBUTIONS[site].values
        squares = squares + CONTRIBUTIONS[site].squares
        rows += CONTRIBUTIONS[site].rows
    return values.tobytes(), squares.tobytes(), rows


def test_the_order_of_a_float32_sum_matters_for_these_contributions() -> None:
    forwards, backwards = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for site in SITES:
        forwards = forwards + CONTRIBUTIONS[site].values
    for site in reversed(SITES):
        backwards = backwards + CONTRIBUTIONS[site].values
    assert forwards.tobytes() != backwards.tobytes()


@given(
    order=st.permutations(SITES),
    missing=st.sets(st.sampled_from(SITES)),
    early_contributions=st.sampled_from([0, 2, len(SITES)]),
    told=st.data(),
)
def test_any_order_of_arrival_gives_the_bits_of_the_sum_in_order(
    order: list[str], missing: set[str], early_contributions: int, told: st.DataObject
) -> None:
    present = [site for site in SITES if site not in missing]
    with OrderedFold(SITES, Part, early_bytes=early_contributions * SIZE) as fold:
        for site in order:
            if site not in missing:
                fold.contribute(site, CONTRIBUTIONS[site])
            elif told.draw(st.booleans(), label=f"{site} is told to be absent"):
                fold.absent(site)
        total = fold.finish()
    if not present:
        assert total is None
        return
    assert total is not None
    assert (total.values.tobytes(), total.squares.tobytes(), total.rows) == summed_in_order(present)


def test_nothing_waits_on_disk_when_sites_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with OrderedFold(SITES, Part) as fold:
        for site in SITES:
            fold.contribute(site, CONTRIBUTIONS[site])
            assert not list(tmp_path.rglob("*"))
        assert fold.finish() is not None


def test_what_looks_into_a_file_waits_there_and_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, temporary = tmp_path / "spool", tmp_path / "temporary"
    spool.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with OrderedFold(SITES, Part, early_bytes=0) as fold:
        for site in reversed(SITES):
            file = spool / site
            file.write_bytes(encode(CONTRIBUTIONS[site]))
            with file.open("rb") as opened:
                fold.contribute(site, decode(mmap(opened.fileno(), 0, access=ACCESS_READ), Part))
            assert not list(temporary.iterdir())
        total = fold.finish()
    assert total is not None
    assert (total.values.tobytes(), total.squares.tobytes(), total.rows) == summed_in_order(SITES)


@pytest.mark.parametrize("in_memory", [0, 1, 3])
def test_early_contributions_beyond_those_kept_in_memory_wait_on_disk_and_are_removed(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with OrderedFold(SITES, Part, early_bytes=in_memory * SIZE) as fold:
        for site in SITES[:0:-1]:
            fold.contribute(site, CONTRIBUTIONS[site])
        assert files_below(tmp_path) == len(SITES) - 1 - in_memory
        fold.contribute(SITES[0], CONTRIBUTIONS[SITES[0]])
        assert files_below(tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_memory_is_free_for_other_early_contributions_once_they_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with OrderedFold(SITES, Part, early_bytes=SIZE) as fold:
        for late, early in zip(SITES[::2], SITES[1::2], strict=True):
            fold.contribute(early, CONTRIBUTIONS[early])
            fold.contribute(late, CONTRIBUTIONS[late])
            assert not list(tmp_path.iterdir())


def files_below(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_the_total_can_be_written_and_no_contribution_changes_with_it() -> None:
    first, second = part(1.0, 2.0), part(3.0, 4.0)
    with OrderedFold(["a", "b"], Part) as fold:
        fold.contribute("a", decode(encode(first), Part))
        fold.contribute("b", second)
        total = fold.finish()
    assert total is not None
    total.values[:] = 0.0
    assert (first.values.tolist(), second.values.tolist()) == ([1.0, 2.0], [3.0, 4.0])


@pytest.mark.parametrize("order", [range(12), range(11, -1, -1)], ids=["in order", "from disk"])
def test_memory_holds_the_total_and_one_contribution(order: Iterable[int]) -> None:
    """Files that are mapped are not in Python's account, and need not be in memory."""
    sites = [f"{number:02}" for number in range(12)]
    sent = encode(part(*np.arange(50_000.0)))
    with OrderedFold(sites, Part, early_bytes=0) as fold:
        tracemalloc.start()
        try:
            for number in order:
                fold.contribute(sites[number], decode(bytearray(sent), Part))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2.1 * len(sent)


def test_the_spool_folder_goes_even_when_the_sum_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), OrderedFold(SITES, Part) as fold:
        fold.contribute(SITES[3], CONTRIBUTIONS[SITES[3]])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_contributions_of_different_shapes_do_not_add() -> None:
    with pytest.raises(CodecError, match=r"Part\.values has another shape"), OrderedFold(["a", "b"], Part) as fold:
        fold.contribute("a", part(1.0, 2.0))
        fold.contribute("b", part(1.0))


def test_a_single_contribution_is_the_total() -> None:
    with OrderedFold(["a", "b"], Part) as fold:
        fold.contribute("b", part(3.0, rows=7))
        total = fold.finish()
    assert total is not None
    np.testing.assert_array_equal(total.values, np.array([3.0], np.float32))
    assert total.rows == 7
