"""What a site adds to an average explanation: nothing where the model answers to few patients alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medfed
from medfed.core.examples import Split
from medfed.evaluate.evaluation import Candidate
from medfed.evaluate.explanation import mean_shares

pytest.importorskip("captum")


def process_of(x: Any, minimum: int, **model: Any) -> Any:
    """One site whose policy lets averages of ``minimum`` patients leave; the run has begun."""
    policy = {"minimum_count": minimum, "explanations": "averages"}
    task = {
        "task_type": "regression",
        "model": {"name": "mlp", "hidden": [1]} | model,
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {
            "label": {"column": "y"},
            "standardize": "none",
            "split": {"train": 0.5, "validation": 0, "test": 0.5},
        },
        "evaluation": {"explanations": True},
        "engine": {"workers": 1},
        "seed": 2,
    }
    process = medfed.build(task, {"a": (x, x[:, 0].astype(float))})
    state = process.initialize()
    node = process.federation.conversation.engine.host.nodes["a"]
    allowed = node.policy().model_copy(update=policy)
    object.__setattr__(node, "policy", lambda: allowed)
    return process, state


def shares(process: Any, state: Any, weights: Any) -> Any:
    fed = process.federation
    fed.conversation.begin_round(0, state.versions.by_site())
    return fed.sum(mean_shares, Candidate(weights, Split.TEST, 0))


def test_a_model_that_answers_to_one_row_tells_nothing_of_it() -> None:
    """ReLU(x₀ − 50): zero, with its gradient, at all rows but the one of a value that nobody else has."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (80, 3)).astype(np.float32)
    crafted = np.array([1, 0, 0, -50, 1, 0], np.float32)
    process, state = process_of(x, minimum=5)
    table = process.federation.conversation.engine.host.nodes["a"].rows().table
    place = int(np.flatnonzero(table.mask(Split.TEST))[0])
    x[place] = (200.0, 2.0, 3.0)  # the mean row stays below
    process, state = process_of(x, minimum=5)
    found = shares(process, state, crafted)
    assert (found.rows, found.withheld) == (0, 1)
    assert not found.shares.any()
    plain = shares(process, state, np.array([1, 0, 0, 50, 1, 0], np.float32))
    assert plain.rows > 5 and plain.withheld == 0 and plain.shares[0] > 0


def test_frozen_layers_are_part_of_what_is_explained(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sites = {name: (rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2) for name in "ab"}
    task = {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [4], "freeze": ["0"]},
        "federation": {"strategy": "fedavg", "rounds": 1},
        "data": {"label": {"column": "y", "classes": [0, 1]}},
        "evaluation": {"explanations": True},
        "seed": 2,
    }
    outcome = medfed.run(task, sites, output=tmp_path / "run")
    assert '"explanations": null' not in (outcome.folder.path / "results.json").read_text()
