"""Predictions drawn by hypothesis, with ties and extreme scores among them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from medfed.core.examples import Predictions

TIED = st.sampled_from([0.001, 0.1, 0.25, 0.4999, 0.5, 0.5001, 0.75, 0.999])
SCORES = TIED | st.floats(0.001, 0.999)


@st.composite
def binary(draw: st.DrawFn, min_rows: int = 1, both: bool = False) -> Predictions:
    """Two classes; both occur where asked."""
    rows = draw(st.integers(max(min_rows, 2 * both), 40))
    scores = draw(st.lists(SCORES, min_size=rows, max_size=rows))
    targets = draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows))
    if both:
        targets[:2] = [0, 1]
    return Predictions(np.array(scores), np.array(targets, np.int64))


@st.composite
def several(draw: st.DrawFn, classes: int, every: bool = False) -> Predictions:
    """More than two classes; every one of them occurs where asked. Each row's probabilities sum to one."""
    rows = draw(st.integers(classes if every else 1, 30))
    shares = draw(
        st.lists(st.lists(st.integers(1, 6), min_size=classes, max_size=classes), min_size=rows, max_size=rows)
    )
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    if every:
        targets[:classes] = range(classes)
    scores = np.array(shares, float)
    return Predictions(scores / scores.sum(1, keepdims=True), np.array(targets, np.int64))


def parts(predictions: Predictions, cuts: list[int]) -> list[Predictions]:
    """The rows cut into consecutive sites, empty ones among them."""
    edges = [0, *sorted(cut % (len(predictions) + 1) for cut in cuts), len(predictions)]
    return [Predictions(predictions.scores[a:b], predictions.targets[a:b]) for a, b in pairwise(edges)]
