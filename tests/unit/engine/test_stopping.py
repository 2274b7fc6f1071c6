from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.engine.stopping import Progress, stop_reason
from medfed.spec.task import Stop


def followed(stop: Stop, values: list[float | None]) -> Progress:
    progress = Progress()
    for value in values:
        progress = progress.after(value, stop)
    return progress


def first_stop(stop: Stop, values: list[float]) -> int | None:
    """After how many evaluations the run ends."""
    progress = Progress()
    for number, value in enumerate(values, start=1):
        progress = progress.after(value, stop)
        if stop_reason(progress, stop, done=False, limit=False):
            return number
    return None


def test_without_rules_only_the_limit_and_convergence_end_a_run() -> None:
    progress = followed(Stop(), [0.5])
    assert stop_reason(progress, Stop(), done=False, limit=False) == ""
    assert stop_reason(progress, Stop(), done=False, limit=True) == "the last round was reached"
    assert stop_reason(progress, Stop(), done=True, limit=False) == "the model's weights no longer change"


@pytest.mark.parametrize(
    ("metric", "values", "target", "stops"),
    [
        ("loss", [0.9, 0.5, 0.3, 0.2], 0.3, 3),
        ("brier", [0.3, 0.2], 0.1, None),
        ("rmse", [5.0, 4.0, 3.9], 4.0, 2),
        ("accuracy", [0.5, 0.9, 0.95], 0.9, 2),
        ("auc", [0.5, 0.6], 0.7, None),
    ],
)
def test_a_target_is_reached_from_the_metrics_own_side(
    metric: str, values: list[float], target: float, stops: int | None
) -> None:
    assert first_stop(Stop(metric=metric, target=target), values) == stops


def test_the_reason_names_metric_and_target() -> None:
    stop = Stop(metric="auc", target=0.9)
    assert stop_reason(followed(stop, [0.93]), stop, done=False, limit=True) == "auc reached its target 0.9"


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "stops"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6], 2, 0.0, None),
        ([1.0, 0.9, 0.95, 0.9, 0.8], 2, 0.0, 4),
        ([1.0, 1.0, 1.0], 2, 0.0, 3),
        ([1.0, 0.99, 0.98, 0.97], 3, 0.05, 4),
        ([1.0, 0.94, 0.93, 0.88, 0.87], 2, 0.05, None),
        ([1.0, 1.1], 1, 0.0, 2),
    ],
)
def test_patience_counts_evaluations_without_a_gain_above_min_delta(
    values: list[float], patience: int, min_delta: float, stops: int | None
) -> None:
    assert first_stop(Stop(metric="loss", patience=patience, min_delta=min_delta), values) == stops


def test_a_metric_without_a_value_changes_nothing() -> None:
    stop = Stop(metric="auc", patience=1)
    assert followed(stop, [None, None]) == Progress()
    assert followed(stop, [0.8, None, None]) == Progress(0.8, 0.8, 0)


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from(["loss", "accuracy"]))
def test_best_is_the_extreme_and_stale_its_age(values: list[float], metric: str) -> None:
    progress = followed(Stop(metric=metric), list(values))
    best = min(values) if metric == "loss" else max(values)
    assert (progress.last, progress.best) == (values[-1], best)
    assert progress.stale == len(values) - 1 - values.index(best)
