"""Batched execution agrees with that of each site by itself to 1e-6 after twenty rounds, under every strategy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import medfed
from medfed.algorithms import ALGORITHMS
from medfed.engine.host import SiteHost
from medfed.engine.inprocess import InProcess

ROUNDS = 20
TOLERANCE = 1e-6

OPTIONS = {"fedadam": {"name": "fedadam", "tau": 0.1}}
"""FedAdam multiplies every difference by lr/tau in each round, rounding too: ten times with its own defaults."""


STACKED = [name for name in ALGORITHMS.names() if all(step.run_many for step in ALGORITHMS.get(name).STEPS)]
"""Ditto is not: each site trains from a model of its own too."""


@st.composite
def federations(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task and its sites, unlike in size: rows of one batch, of a part of one, of many."""
    columns, classes = draw(st.integers(1, 8)), draw(st.sampled_from([0, 2, 3]))
    rows = draw(st.lists(st.integers(8, 40), min_size=2, max_size=6))
    hidden = draw(st.lists(st.integers(1, 9), max_size=2))
    model: Any = {"name": "mlp", "hidden": hidden}
    if not hidden:
        model = "logistic" if classes else "linear"
    federation: dict[str, Any] = {"rounds": ROUNDS, "batch_size": draw(st.sampled_from([4, 7, "full"])), "lr": 0.01}
    federation[draw(st.sampled_from(["local_epochs", "local_updates"]))] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        federation["cohort"] = 2
    federation["data_position"] = draw(st.sampled_from(["kept", "fresh"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sites = {}
    for number, n in enumerate(rows):
        features = rng.normal(0.2 * number, 1.0, (n, columns)).astype(np.float32)
        targets = features.sum(1) + rng.normal(0, 0.5, n)
        if classes:
            targets = np.digitize(targets, [0.0] if classes == 2 else [-0.5, 0.5])
        sites[f"site {number}"] = features, targets
    label: dict[str, Any] = {"column": "y"} | ({"classes": list(range(classes))} if classes else {})
    task = {
        "task_type": "classification" if classes else "regression",
        "model": model,
        "federation": federation,
        "data": {"label": label, "split": {"train": 1.0, "validation": 0, "test": 0}},
        "evaluation": {"split": "train"},
        "seed": draw(st.integers(0, 1000)),
    }
    return task, sites


@pytest.mark.parametrize("strategy", STACKED)
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(federations())
def test_a_stack_of_sites_is_each_site_by_itself(strategy: str, federation: tuple[dict[str, Any], Any]) -> None:
    task, sites = federation
    task = task | {"federation": task["federation"] | {"strategy": OPTIONS.get(strategy, strategy)}}
    together, alone = (run(task, sites, batched) for batched in ("auto", "off"))
    assert np.abs(together - alone).max() <= TOLERANCE * max(1.0, float(np.abs(alone).max()))


def test_the_strategies_of_one_model_for_all_are_stacked() -> None:
    assert {*STACKED} >= {"fedavg", "fedprox", "scaffold", "fedadam"}


def run(task: dict[str, Any], sites: dict[str, Any], batched: str) -> np.ndarray[Any, Any]:
    """The model's weights after the last round; ``auto`` has to have stacked the sites."""
    process = medfed.build(task | {"engine": {"batched": batched, "workers": 1}}, sites)
    state = process.initialize()
    while not process.done(state):
        state, _ = process.next(state)
    parties = process.federation.conversation.engine
    assert isinstance(parties, InProcess) and isinstance(parties.host, SiteHost)
    assert parties.host.stacked == (batched == "auto")
    return process.weights(state)[""]
