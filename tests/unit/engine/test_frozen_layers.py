"""Layers that are neither trained nor sent.

The oracle of most tests: a network whose first layer is frozen is a smaller network on what that layer makes of the
rows, under any strategy, optimizer and protection.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file, save_file

import medfed
from medfed.core.errors import TaskError, UserError

HIDDEN, COLUMNS = 6, 3
FIRST = HIDDEN * COLUMNS + HIDDEN
SITES = ("ashford", "birch", "cedar")


def tensors() -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    shapes = {"0.weight": (HIDDEN, COLUMNS), "0.bias": (HIDDEN,), "2.weight": (1, HIDDEN), "2.bias": (1,)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def sites(*, transformed: bool = False) -> dict[str, Any]:
    found, first = {}, tensors()
    for number, site in enumerate(SITES):
        rng = np.random.default_rng([5, number])
        features = rng.normal(0.3 * number, 1, size=(40 + 10 * number, COLUMNS)).astype(np.float32)
        labels = (features[:, 0] + rng.normal(0, 0.5, len(features)) > 0).astype(np.int64)
        inputs = np.maximum(features @ first["0.weight"].T + first["0.bias"], 0) if transformed else features
        found[site] = inputs.astype(np.float32), labels
    return found


def told(path: Path, chosen: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    save_file(chosen, path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def task(model: dict[str, Any], *, privacy: dict[str, Any] | None = None, **federation: Any) -> dict[str, Any]:
    settings = {"strategy": "fedavg", "rounds": 3, "local_epochs": 2, "batch_size": 8, "lr": 0.1, **federation}
    return {
        "task_type": "classification",
        "model": model,
        "federation": settings,
        "data": {"label": {"column": "y", "classes": [0, 1]}, "standardize": "none"},
        "privacy": privacy or {},
        "seed": 3,
    }


def frozen_model(tmp_path: Path) -> dict[str, Any]:
    file = told(tmp_path / "whole.safetensors", tensors())
    return {"name": "mlp", "hidden": [HIDDEN], "pretrained": file, "freeze": ["0"]}


def last_weights(given: dict[str, Any], rows: dict[str, Any], *settings: str) -> np.ndarray[Any, Any]:
    process = medfed.build(given, rows, overrides=["engine.batched=off", *settings])
    state = process.initialize()
    while not process.done(state):
        state, _ = process.next(state)
    return process.weights(state)[""]


ALIKE: list[dict[str, Any]] = [
    {},
    {"optimizer": "adam", "weight_decay": 0.01, "lr": 0.02},
    {"momentum": 0.9, "clip_norm": 0.1, "optimizer_state": "kept"},
    {"strategy": {"name": "fedprox", "mu": 0.5}},
    {"strategy": "scaffold", "lr": 0.05},
    {"strategy": "fedadam"},
    {"compression": "int8"},
    {"compression": {"name": "topk", "fraction": 0.3}},
    {"privacy": {"aggregation": "secure"}},
    {"strategy": "pooled"},
]


@pytest.mark.parametrize("settings", ALIKE, ids=str)
def test_a_frozen_layer_is_a_smaller_network_on_what_it_gives(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = last_weights(task(frozen_model(tmp_path), **settings), sites())
    head = {name.removeprefix("2."): tensor for name, tensor in tensors().items() if name.startswith("2.")}
    smaller = {"name": "logistic", "pretrained": told(tmp_path / "head.safetensors", head)}
    expected = last_weights(task(smaller, **settings), sites(transformed=True))
    np.testing.assert_array_equal(found[:FIRST], np.concatenate([tensors()["0.weight"].ravel(), tensors()["0.bias"]]))
    np.testing.assert_allclose(found[FIRST:], expected, rtol=2e-4, atol=1e-5)
    assert not np.allclose(found[FIRST:], np.concatenate([tensors()["2.weight"].ravel(), tensors()["2.bias"]]))


def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path) -> None:
    given = task(frozen_model(tmp_path), strategy="scaffold")
    one, three = (last_weights(given, sites(), f"engine.workers={n}") for n in (1, 3))
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    "privacy",
    [
        {"record": {"noise_multiplier": 0.5}},
        {"site": {"noise_multiplier": 0.3}},
        {"site": {"noise_multiplier": 0.3}, "aggregation": "secure"},
    ],
    ids=str,
)
def test_noise_and_clipping_are_of_the_trained_part(tmp_path: Path, privacy: dict[str, Any]) -> None:
    found = last_weights(task(frozen_model(tmp_path), privacy=privacy), sites())
    np.testing.assert_array_equal(found[:FIRST], np.concatenate([tensors()["0.weight"].ravel(), tensors()["0.bias"]]))
    assert np.isfinite(found).all()


def test_only_the_trained_part_is_sent_both_ways_and_the_rest_is_saved(tmp_path: Path) -> None:
    outcome = medfed.run(task(frozen_model(tmp_path)), sites(), output=tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run" / "ledger" / "birch.jsonl").read_text().splitlines()]
    shapes = {tuple(e["shapes"]) for e in entries if e.get("step") == "fedavg.train_locally" and e["kind"] == "release"}
    assert shapes == {(f"delta float32[{HIDDEN + 1}]", "rows int")}
    assert outcome.state.lanes[0].algorithm.weights.shape == (HIDDEN + 1,)  # type: ignore[attr-defined]
    saved = load_file(tmp_path / "run" / "model.safetensors")
    np.testing.assert_array_equal(saved["0.weight"], tensors()["0.weight"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["updates"] == {
        "steps": ["fedavg.train_locally"],
        "trained": HIDDEN + 1,
        "whole_bytes": 4 * (FIRST + HIDDEN + 1),
    }
    new_rows = pandas.DataFrame(sites()["birch"][0], columns=[f"x{k}" for k in range(COLUMNS)])
    assert medfed.predict(tmp_path / "run", new_rows)["predicted"].notna().all()


@pytest.mark.parametrize(
    ("freeze", "said"), [(["conv1"], "no layer 'conv1'"), (["0", "2"], "all layers are frozen"), (["*"], "all layers")]
)
def test_what_cannot_be_frozen_is_refused(freeze: list[str], said: str) -> None:
    given = task({"name": "mlp", "freeze": freeze})
    with pytest.raises(TaskError, match=said) as caught:
        medfed.check(given)
    assert "model.freeze" in caught.value.where
    if "conv1" in said:
        assert "its layers: 0, 2" in caught.value.remedy


def test_an_audit_says_why_it_does_not_attack_such_a_run(tmp_path: Path) -> None:
    medfed.run(task(frozen_model(tmp_path)), sites(), output=tmp_path / "run")
    with pytest.raises(UserError, match="trained a part of its network"):
        medfed.audit(tmp_path / "run", sites())
