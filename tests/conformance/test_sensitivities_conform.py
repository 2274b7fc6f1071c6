"""Every field that declares a sensitivity: rows of one patient, added or removed, move it by no more than that.

Asked of each summed message that a step of the package or of a plugin releases; one without a recipe here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfed.algorithms import ALGORITHMS
from medfed.core.examples import Predictions
from medfed.core.messages import Message, additive_fields
from medfed.core.sensitivity import Bounds
from medfed.data.prepare import Adopted
from medfed.engine import adaptive
from medfed.engine.release import declares_sensitivity
from medfed.engine.strategies import RUN_STEPS
from medfed.metrics.classification import ClassificationSums, classification_sums
from medfed.metrics.regression import RegressionSums, bounded_sums
from medfed.privacy.release import in_steps, moved_fields

LOW, HIGH, LOSS = -3.0, 7.0, 4.0
MOST_ROWS = 3
CLASSES = (2, 3, 5)


def classified(draw: np.random.Generator, rows: int, classes: int) -> Predictions:
    """Scores that are sure of themselves now and then, as those are that move a loss most."""
    raw = draw.dirichlet(np.full(classes, 0.1), rows)
    raw[draw.random(rows) < 0.3] = np.eye(classes)[draw.integers(classes)]
    return Predictions(raw[:, 1] if classes == 2 else raw, draw.integers(classes, size=rows))


def measured(draw: np.random.Generator, rows: int) -> Predictions:
    return Predictions(draw.normal(0, 20, rows), draw.normal(0, 20, rows).astype(np.float32))


def of_classes(classes: int) -> Callable[[np.random.Generator, int], tuple[Message, Message, Bounds]]:
    def neighbours(draw: np.random.Generator, own: int) -> tuple[Message, Message, Bounds]:
        whole = classified(draw, 12 + own, classes)
        less = Predictions(whole.scores[own:], whole.targets[own:])
        found = (classification_sums(each, classes, 0.5, 20, LOSS) for each in (whole, less))
        return *found, Bounds(MOST_ROWS, classes, LOSS)

    return neighbours


def of_values(draw: np.random.Generator, own: int) -> tuple[Message, Message, Bounds]:
    whole = measured(draw, 12 + own)
    less = Predictions(whole.scores[own:], whole.targets[own:])
    found = (bounded_sums(each, LOW, HIGH) for each in (whole, less))
    return *found, Bounds(MOST_ROWS, 0, LOSS, LOW, HIGH)


def constant(message: Message) -> Callable[[np.random.Generator, int], tuple[Message, Message, Bounds]]:
    return lambda draw, own: (message, message, Bounds(MOST_ROWS, 2, LOSS))


RECIPES: list[tuple[type[Message], Callable[[np.random.Generator, int], tuple[Message, Message, Bounds]]]] = [
    *((ClassificationSums, of_classes(classes)) for classes in CLASSES),
    (RegressionSums, of_values),
    (Adopted, constant(Adopted(1))),
    (adaptive.Told, constant(adaptive.Told(1))),
    (adaptive.Within, constant(adaptive.Within(0.3, 1))),
]


def test_every_message_that_declares_sensitivities_is_tested_here() -> None:
    steps: list[Any] = [*RUN_STEPS, *adaptive.STEPS]
    steps += [step for name in ALGORITHMS.names() for step in ALGORITHMS.get(name).STEPS]
    assert {step.reply for step in steps if declares_sensitivity(step)} == {kind for kind, _ in RECIPES}


@pytest.mark.parametrize(("kind", "neighbours"), RECIPES)
@given(seed=st.integers(0, 2**32 - 1), own=st.integers(1, MOST_ROWS))
@settings(max_examples=60, deadline=None)
def test_a_patient_moves_each_field_by_no_more_than_it_declares(
    kind: Any, neighbours: Any, seed: int, own: int
) -> None:
    whole, less, bounds = neighbours(np.random.default_rng(seed), own)
    moved = moved_fields(kind, bounds)
    for name, declared in additive_fields(kind).items():
        step = declared.resolution or 1.0
        one, other = (np.asarray(getattr(each, name), float) / step for each in (whole, less))
        off = np.rint(one) - np.rint(other)
        if name not in moved:
            assert not off.any(), name
            continue
        allowed = in_steps(moved[name], declared, off.size)
        assert np.abs(off).sum() <= allowed.l1 + 1e-9, name
        assert np.linalg.norm(off) <= allowed.l2 + 1e-9, name


@pytest.mark.parametrize("classes", CLASSES)
def test_the_declared_sensitivity_of_counts_is_reached_and_so_no_larger_than_it_has_to_be(classes: int) -> None:
    scores = np.full(MOST_ROWS, 0.9) if classes == 2 else np.tile(np.eye(classes)[1], (MOST_ROWS, 1))
    targets = np.zeros(MOST_ROWS, np.int64)
    sums = classification_sums(Predictions(scores, targets), classes, 0.5, 20, LOSS)
    moved = moved_fields(ClassificationSums, Bounds(MOST_ROWS, classes, LOSS))
    for name in ("confusion", "histogram"):
        field = getattr(sums, name)
        assert field.sum() == moved[name].l1 and np.linalg.norm(field) == pytest.approx(moved[name].l2)
    if classes > 2:
        assert sums.loss == pytest.approx(moved["loss"].l1) and sums.brier == pytest.approx(moved["brier"].l1)
