from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.core.examples import Split
from medfed.data.splits import SPLITS, assign_splits, largest_remainder
from medfed.spec.task import Splits

PLAIN, EXACT = Splits(stratify=False), Splits(stratify=True)
patient_ids = st.lists(st.text(max_size=8), min_size=1, max_size=40, unique=True)
seeds = st.integers(0, 2**63 - 1)


def by_patient(ids, codes):
    return dict(zip(ids, codes.tolist(), strict=True))


@settings(deadline=None)
@given(patient_ids, st.text(max_size=8), seeds)
def test_appending_a_patient_moves_no_other(ids, newcomer, seed):
    before = by_patient(ids, assign_splits(ids, None, PLAIN, seed))
    after = by_patient([*ids, newcomer], assign_splits([*ids, newcomer], None, PLAIN, seed))
    assert {patient: after[patient] for patient in ids} == before


@settings(deadline=None)
@given(st.data(), patient_ids, seeds, st.sampled_from([PLAIN, EXACT]))
def test_the_order_of_rows_is_irrelevant(data, ids, seed, splits):
    classes = data.draw(st.lists(st.sampled_from("ab"), min_size=len(ids), max_size=len(ids)))
    order = data.draw(st.permutations(range(len(ids))))
    straight = by_patient(ids, assign_splits(ids, classes, splits, seed))
    shuffled_ids, shuffled_classes = [ids[i] for i in order], [classes[i] for i in order]
    assert by_patient(shuffled_ids, assign_splits(shuffled_ids, shuffled_classes, splits, seed)) == straight


def test_fractions_are_met_on_the_average():
    codes = assign_splits([str(i) for i in range(20_000)], None, PLAIN, 0)
    shares = np.bincount(codes, minlength=3) / len(codes)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=4 * np.sqrt(0.25 / 20_000))


def test_the_seed_decides():
    ids = [str(i) for i in range(200)]
    assert assign_splits(ids, None, PLAIN, 1).tolist() == assign_splits(ids, None, PLAIN, 1).tolist()
    assert assign_splits(ids, None, PLAIN, 1).tolist() != assign_splits(ids, None, PLAIN, 2).tolist()


def test_stratified_proportions_are_exact_in_every_class():
    ids = [str(i) for i in range(130)]
    classes = ["a"] * 100 + ["b"] * 30
    codes = assign_splits(ids, classes, EXACT, 7)
    assert np.bincount(codes[:100], minlength=3).tolist() == [70, 10, 20]
    assert np.bincount(codes[100:], minlength=3).tolist() == [21, 3, 6]


def test_a_patient_of_several_rows_counts_once_under_its_most_frequent_class():
    ids = [f"p{i}" for i in range(10) for _ in range(3)]
    classes = [name for i in range(10) for name in (("a", "a", "b") if i < 5 else ("b", "b", "a"))]
    codes = assign_splits(ids, classes, Splits(train=0.6, validation=0.2, test=0.2, stratify=True), 0)
    patients = codes.reshape(10, 3)
    assert (patients == patients[:, :1]).all()
    for half in (patients[:5, 0], patients[5:, 0]):
        assert np.bincount(half, minlength=3).tolist() == [3, 1, 1]


def test_a_tie_between_classes_goes_to_the_higher():
    ids, classes = ["p", "p", *"qrs"], ["a", "b", "b", "b", "b"]
    codes = assign_splits(ids, classes, Splits(train=0.5, validation=0, test=0.5, stratify=True), 0)
    assert np.bincount(codes[1:], minlength=3).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("count", "fractions", "parts"),
    [
        (10, (0.7, 0.1, 0.2), (7, 1, 2)),
        (1, (0.7, 0.1, 0.2), (1, 0, 0)),
        (2, (0.5, 0.25, 0.25), (1, 1, 0)),
        (3, (0.5, 0.25, 0.25), (1, 1, 1)),
        (0, (1, 0, 0), (0, 0, 0)),
    ],
)
def test_largest_remainder_by_hand(count, fractions, parts):
    assert tuple(largest_remainder(count, np.array(fractions, dtype=float))) == parts


def test_everything_may_train():
    codes = assign_splits([str(i) for i in range(50)], None, Splits(train=1, validation=0, test=0, stratify=False), 0)
    assert {SPLITS[code] for code in codes} == {Split.TRAIN}
