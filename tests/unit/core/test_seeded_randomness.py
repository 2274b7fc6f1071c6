from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.rng import generator, seed_sequence, torch_seed

NAMES = st.lists(st.text(max_size=6) | st.integers(-5, 5), max_size=3).map(tuple)
SEEDS = st.integers(0, 2**63 - 1)


def first(seed: int, *names: str | int) -> list[int]:
    return generator(seed, *names).integers(0, 2**63, 4).tolist()


@given(SEEDS, NAMES)
def test_the_same_names_give_the_same_stream(seed, names):
    assert first(seed, *names) == first(seed, *names)
    assert torch_seed(seed, *names) == torch_seed(seed, *names)


@given(SEEDS, NAMES, SEEDS, NAMES)
def test_other_names_or_seeds_give_other_streams(seed, names, other_seed, other_names):
    if (seed, repr(names)) != (other_seed, repr(other_names)):
        assert first(seed, *names) != first(other_seed, *other_names)
        assert torch_seed(seed, *names) != torch_seed(other_seed, *other_names)


def test_names_that_join_to_the_same_text_are_told_apart():
    variants = [("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), ("a', 'bc",), (1,), ("1",), (), ("",)]
    assert len({tuple(first(0, *names)) for names in variants}) == len(variants)


@given(SEEDS, NAMES)
def test_a_torch_seed_is_one_that_torch_accepts(seed, names):
    assert 0 <= torch_seed(seed, *names) < 2**63


def test_streams_do_not_depend_on_calls_made_before():
    expected = first(7, "site", 3)
    np.random.default_rng(0).random(10)
    first(7, "other")
    assert first(7, "site", 3) == expected


def test_the_stream_is_that_of_numpys_seed_sequence():
    np.testing.assert_array_equal(
        generator(3, "a").random(5), np.random.Generator(np.random.PCG64(seed_sequence(3, "a"))).random(5)
    )


def test_streams_do_not_depend_on_the_hash_seed_of_the_process():
    program = (
        "from medfed.core.rng import *;"
        "print(generator(42, 'Köln', 3, 'shuffle').integers(0, 2**63, 3), torch_seed(1, 'x'))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "12345")
    }
    here = f"{generator(42, 'Köln', 3, 'shuffle').integers(0, 2**63, 3)} {torch_seed(1, 'x')}\n"
    assert printed == {here}
