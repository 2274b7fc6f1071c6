"""Masks against AES-256 block by block, and rows of 256 bits against Python's whole numbers."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfed.privacy.masks import Mask, apply_masks
from medfed.privacy.wide import add_rows, row_of, signed

PIECE = 256 * 1024
"""Bytes of keystream that are made at a time: what is longer takes several pieces."""

ROWS = st.lists(st.tuples(st.integers(-(2**255), 2**255 - 1), st.integers(-(2**255), 2**255 - 1)), max_size=6)


def keystream(seed: bytes, size: int) -> bytes:
    """AES-256 of the counters 0, 1, 2, … as big-endian blocks: CTR mode by the definition of SP 800-38A, 6.5."""
    counters = np.zeros((size // 16 + 1, 2), ">u8")
    counters[:, 1] = np.arange(len(counters))
    return Cipher(algorithms.AES(seed), modes.ECB()).encryptor().update(counters.tobytes())[:size]


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def mask_of(seed: bytes, size: int, dtype: Any = np.uint32) -> NDArray[Any]:
    values = np.zeros(size, dtype)
    apply_masks([values], [Mask(seed, 1)])
    return values


def numbers(rows: NDArray[np.uint64]) -> list[int]:
    return [sum(int(limb) << 64 * place for place, limb in enumerate(row)) for row in rows]


def test_the_stream_of_the_zero_key_begins_with_the_published_block() -> None:
    """AES-256 of the zero block under the zero key (FIPS 197's validation suite, GCM's test case 13: H)."""
    assert mask_of(bytes(32), 4).astype("<u4").tobytes().hex() == "dc95c078a2408989ad48a21492842087"


def test_the_blocks_of_a_stream_are_aes_of_the_counters() -> None:
    """The oracle itself against SP 800-38A, F.1.5 (ECB-AES256), first block."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = (
        Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes.fromhex("6bc1bee22e409f96e93d7e117393172a"))
    )
    assert block.hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"
    assert mask_of(key, 1000).astype("<u4").tobytes() == keystream(key, 4000)


@pytest.mark.parametrize(("dtype", "size"), [(np.uint32, 70_001), (np.uint64, 32_769), (np.uint32, 131_072)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_mask_runs_on_over_several_pieces(dtype: Any, size: int, sign: int) -> None:
    assert np.dtype(dtype).itemsize * size > PIECE
    values = np.arange(size, dtype=dtype) * dtype(0x9E3779B1)
    stream = np.frombuffer(keystream(seed_of("pieces"), values.nbytes), np.dtype(dtype).newbyteorder("<"))
    wanted = values + stream if sign > 0 else values - stream
    apply_masks([values], [Mask(seed_of("pieces"), sign)])
    assert np.array_equal(values, wanted)


def test_a_mask_of_rows_runs_on_over_several_pieces() -> None:
    rows = np.zeros((8200, 4), np.uint64)
    assert rows.nbytes > PIECE
    apply_masks([rows], [Mask(seed_of("rows"), 1)])
    assert rows.astype("<u8").tobytes() == keystream(seed_of("rows"), rows.nbytes)


@given(st.lists(st.tuples(st.sampled_from(["narrow", "middle", "wide"]), st.integers(0, 40)), max_size=6))
def test_a_mask_runs_on_from_one_part_to_the_next(parts: list[tuple[str, int]]) -> None:
    """No two parts are under the same bytes, also where a part ends within a block of the cipher."""
    shapes = {"narrow": ((), np.uint32), "middle": ((), np.uint64), "wide": ((4,), np.uint64)}
    arrays = [np.zeros((size, *shapes[kind][0]), shapes[kind][1]) for kind, size in parts]
    apply_masks(arrays, [Mask(seed_of("parts"), 1)])
    found = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    assert found == keystream(seed_of("parts"), len(found))


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 50), st.integers(0, 50), st.integers(0, 5))
def test_the_masks_of_all_pairs_cancel_in_the_sum(sites: int, narrow: int, middle: int, wide: int) -> None:
    totals = [np.zeros(narrow, np.uint32), np.zeros(middle, np.uint64), np.zeros((wide, 4), np.uint64)]
    for site in range(sites):
        mine = [np.zeros_like(total) for total in totals]
        pairs = {other: seed_of(f"{min(site, other)}-{max(site, other)}") for other in range(sites) if other != site}
        apply_masks(mine, [Mask(seed, 1 if other > site else -1) for other, seed in pairs.items()])
        assert all(part.any() for part in mine if part.size)
        np.add(totals[0], mine[0], out=totals[0])
        np.add(totals[1], mine[1], out=totals[1])
        add_rows(totals[2], mine[2])
    assert not any(total.any() for total in totals)


def test_a_mask_that_is_added_and_taken_away_leaves_the_values() -> None:
    values = np.arange(100, dtype=np.uint64)
    apply_masks([values], [Mask(seed_of("one"), 1), Mask(seed_of("two"), -1)])
    assert not np.array_equal(values, np.arange(100, dtype=np.uint64))
    apply_masks([values], [Mask(seed_of("two"), 1), Mask(seed_of("one"), -1)])
    assert np.array_equal(values, np.arange(100, dtype=np.uint64))


@pytest.mark.parametrize("bit", [0, 1, 7, 8, 63, 64, 127, 128, 129, 191, 192, 247, 248, 254, 255])
def test_two_seeds_that_differ_in_one_bit_have_nothing_in_common(bit: int) -> None:
    """The whole seed of 256 bits is the key: were any of it left out, both would give the same stream."""
    seed = secrets.token_bytes(32)
    other = (int.from_bytes(seed, "little") ^ (1 << bit)).to_bytes(32, "little")
    one, two = mask_of(seed, 4096).tobytes(), mask_of(other, 4096).tobytes()
    differing = np.unpackbits(np.frombuffer(one, np.uint8) ^ np.frombuffer(two, np.uint8))
    assert abs(differing.mean() - 0.5) < 6 * 0.5 / differing.size**0.5
    blocks = [{text[start : start + 16] for start in range(0, len(text), 16)} for text in (one, two)]
    assert len(blocks[0]) == len(blocks[1]) == 1024
    assert not blocks[0] & blocks[1]


def test_no_byte_of_a_stream_is_more_frequent_than_chance_has_it() -> None:
    counts = np.bincount(np.frombuffer(mask_of(secrets.token_bytes(32), 65_536).tobytes(), np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert 255 - 6 * 510**0.5 < statistic < 255 + 6 * 510**0.5


@pytest.mark.parametrize(("size", "sign"), [(31, 1), (33, 1), (16, -1), (0, 1), (32, 0), (32, 2), (32, -2)])
def test_a_seed_of_another_size_or_another_sign_makes_no_mask(size: int, sign: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Mask(bytes(size), sign)


def test_masks_of_nothing_change_nothing() -> None:
    empty = [np.zeros(0, np.uint32), np.zeros(0, np.uint64), np.zeros((0, 4), np.uint64)]
    apply_masks(empty, [Mask(seed_of("empty"), 1)])
    values = np.arange(5, dtype=np.uint32)
    apply_masks([values], [])
    assert values.tolist() == [0, 1, 2, 3, 4]


@given(st.integers(-(2**300), 2**300))
def test_a_row_is_a_whole_number_modulo_2_to_the_256(value: int) -> None:
    row = row_of(value)
    assert (row.shape, row.dtype) == ((4,), np.uint64)
    assert numbers(row[None]) == [value % 2**256]
    assert (signed(row) - value) % 2**256 == 0
    assert -(2**255) <= signed(row) < 2**255


@given(ROWS, st.sampled_from([1, -1]))
def test_rows_are_added_as_python_adds(pairs: list[tuple[int, int]], sign: int) -> None:
    into = np.array([row_of(a) for a, _ in pairs], np.uint64).reshape(-1, 4)
    add_rows(into, np.array([row_of(b) for _, b in pairs], np.uint64).reshape(-1, 4), sign)
    assert numbers(into) == [(a + sign * b) % 2**256 for a, b in pairs]


def test_carries_run_through_all_limbs() -> None:
    ones = row_of(-1)[None].copy()
    add_rows(ones, row_of(1)[None])
    assert not ones.any()
    add_rows(ones, row_of(1)[None], -1)
    assert (ones == 2**64 - 1).all()
    top = row_of(2**192 - 1)[None].copy()
    add_rows(top, row_of(1)[None])
    assert top.tolist() == [[0, 0, 0, 1]]


def test_rows_of_another_number_are_not_added() -> None:
    with pytest.raises(ValueError, match="zip"):
        add_rows(np.zeros((2, 4), np.uint64), np.zeros((3, 4), np.uint64))
