"""Which rows a site's readers are shown."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medfed.engine.explaining import pick
from medfed.evaluate.explained import Group


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 30), st.sampled_from([2, 4]))
def test_rows_are_the_worst_the_surest_and_the_most_doubtful(seed, count, rows, classes):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), count)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    targets = rng.integers(0, classes, count)
    chosen = probabilities.argmax(1)
    picked = pick(scores, targets, chosen, rows)
    assert len({row for row, _ in picked}) == len(picked) == min(rows, len(picked)) <= count
    by_group = {group: [row for row, each in picked if each is group] for group in Group}
    worst, confident, uncertain = (by_group[g] for g in (Group.WORST, Group.CONFIDENT, Group.UNCERTAIN))
    of_truth = probabilities[np.arange(count), targets]
    wrong = np.flatnonzero(chosen != targets)
    assert len(worst) == min(len(wrong), -(-rows // 2))
    assert worst == sorted(wrong, key=lambda row: of_truth[row])[: len(worst)]
    right = np.flatnonzero(chosen == targets)
    assert confident == sorted(right, key=lambda row: -of_truth[row])[: len(confident)]
    ranked = np.sort(probabilities, 1)
    margin = ranked[:, -1] - ranked[:, -2]
    left = set(range(count)) - {*worst, *confident}
    assert uncertain == sorted(left, key=lambda row: (margin[row], row))[: len(uncertain)]
    assert len(picked) == rows or not left - {*uncertain}


def test_of_values_the_largest_errors_come_first_then_the_closest():
    scores, targets = np.array([1.0, 5.0, 2.0, 9.0]), np.array([1.1, 1.0, 2.0, 0.0], np.float32)
    assert pick(scores, targets, np.zeros(4, np.int64), 4) == [
        (3, Group.WORST),
        (1, Group.WORST),
        (2, Group.CLOSEST),
        (0, Group.CLOSEST),
    ]
