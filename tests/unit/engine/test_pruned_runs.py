"""Runs that remove units of their network and fine-tune what is left.

The oracle: after a hidden unit is removed, a perceptron is a smaller one, trained on from the weights that it kept.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn.utils import prune

import medfed
from medfed.core.errors import TaskError
from medfed.models.elements import EVERYTHING
from medfed.models.layers import frozen_elements
from medfed.models.network import Network
from medfed.models.pruning import pruned_elements

HIDDEN, COLUMNS, AFTER = 8, 3, 2
PRUNING = {"share": 0.5, "after": AFTER}


def sites() -> dict[str, Any]:
    found = {}
    for number, site in enumerate(("ashford", "birch", "cedar")):
        rng = np.random.default_rng([5, number])
        features = rng.normal(0.3 * number, 1, size=(40 + 10 * number, COLUMNS)).astype(np.float32)
        found[site] = features, (features[:, 0] + rng.normal(0, 0.5, len(features)) > 0).astype(np.int64)
    return found


def task(rounds: int, model: dict[str, Any] | None = None, **federation: Any) -> dict[str, Any]:
    privacy = federation.pop("privacy", {})
    settings = {"strategy": "fedavg", "rounds": rounds, "local_updates": 3, "batch_size": "full", "lr": 0.2}
    return {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [HIDDEN]} | (model or {}),
        "federation": settings | federation,
        "data": {"label": {"column": "y", "classes": [0, 1]}, "standardize": "none"},
        "engine": {"batched": "off"},
        "privacy": privacy,
        "seed": 3,
    }


def trained(folder: Path, given: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    medfed.run(given, sites(), output=folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adam", "lr": 0.02},
        {"momentum": 0.9, "optimizer_state": "kept"},
        {"strategy": {"name": "fedprox", "mu": 0.5}},
        {"strategy": "scaffold"},
        {"strategy": "fedadam"},
        {"compression": "int8"},
        {"privacy": {"aggregation": "secure"}},
        {"strategy": "pooled", "optimizer_state": "fresh"},
    ],
    ids=str,
)
def test_what_is_left_is_trained_as_a_smaller_network(tmp_path: Path, settings: dict[str, Any]) -> None:
    before = trained(tmp_path / "before", task(AFTER, **settings))
    found = trained(tmp_path / "pruned", task(AFTER + 2, pruning=PRUNING, **settings))
    kept = np.sort(np.argsort(np.linalg.norm(before["0.weight"], axis=1))[HIDDEN // 2 :])
    smaller = {
        "0.weight": before["0.weight"][kept],
        "0.bias": before["0.bias"][kept],
        "2.weight": np.ascontiguousarray(before["2.weight"][:, kept]),
        "2.bias": before["2.bias"],
    }
    save_file(smaller, tmp_path / "smaller.safetensors")
    digest = hashlib.sha256((tmp_path / "smaller.safetensors").read_bytes()).hexdigest()
    start = {"hidden": [HIDDEN // 2], "pretrained": {"path": str(tmp_path / "smaller.safetensors"), "sha256": digest}}
    expected = trained(tmp_path / "smaller", task(2, start, **settings))
    loose = {"rtol": 0.05, "atol": 2e-3} if "compression" in settings else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found["0.weight"][kept], expected["0.weight"], **loose)
    np.testing.assert_allclose(found["0.bias"][kept], expected["0.bias"], **loose)
    np.testing.assert_allclose(found["2.weight"][:, kept], expected["2.weight"], **loose)
    removed = np.setdiff1d(np.arange(HIDDEN), kept)
    assert not found["0.weight"][removed].any() and not found["0.bias"][removed].any()
    assert not np.allclose(expected["0.weight"], smaller["0.weight"], atol=1e-3)


def test_what_was_removed_is_not_sent(tmp_path: Path) -> None:
    trained(tmp_path / "run", task(AFTER + 1, pruning=PRUNING))
    lines = (tmp_path / "run" / "ledger" / "birch.jsonl").read_text().splitlines()
    sent = [e["shapes"][0] for e in map(json.loads, lines) if e.get("step") == "fedavg.train_locally" and "shapes" in e]
    whole = COLUMNS * HIDDEN + HIDDEN + HIDDEN + 1
    left = whole - (COLUMNS + 1) * HIDDEN // 2
    assert sent == [f"delta float32[{whole}]"] * AFTER + [f"delta float32[{left}]"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["updates"]["trained"] == left


@pytest.mark.parametrize("cut", [AFTER - 1, AFTER, AFTER + 1])
def test_a_run_cut_around_the_pruning_ends_on_the_same_bits(tmp_path: Path, cut: int) -> None:
    given = task(AFTER + 2, pruning=PRUNING, strategy="scaffold", batch_size=8)
    whole = trained(tmp_path / "whole", given)

    class Killed:
        def begun(self, process: Any, state: Any) -> None: ...

        def advanced(self, state: Any, metrics: Any) -> None:
            if state.round == cut:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medfed.run(given, sites(), output=tmp_path / "cut", observer=Killed(), overrides=["engine.workers=2"])
    medfed.resume(tmp_path / "cut", sites())
    for name, tensor in load_file(tmp_path / "cut" / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, whole[name])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.99])
def test_the_units_are_torch_s(share: float) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 7, 3), nn.BatchNorm2d(7), nn.Conv2d(7, 5, 3), nn.Flatten(), nn.Linear(20, 2))
    network = Network(module)
    whole = network.vector()
    elements = pruned_elements(network, whole, EVERYTHING, share)
    network.load(elements.whole(elements.chosen(whole)))
    pruned = {name: layer.weight.detach().clone() for name, layer in module.named_modules() if hasattr(layer, "weight")}
    network.load(whole)
    for name, units in (("0", 7), ("2", 5)):
        layer = module[int(name)]
        amount = min(round(share * units), units - 1)
        masked = prune.ln_structured(_copied(layer), "weight", amount, n=2, dim=0)
        torch.testing.assert_close(pruned[name], masked.weight)
    torch.testing.assert_close(pruned["4"], module[4].weight)


def _copied(layer: nn.Conv2d) -> nn.Conv2d:
    copy = nn.Conv2d(layer.in_channels, layer.out_channels, 3)
    copy.load_state_dict(layer.state_dict())
    return copy


def test_frozen_layers_keep_their_units() -> None:
    network = Network(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)))
    frozen, whole = frozen_elements(network, ["0"]), network.vector()
    elements = pruned_elements(network, whole, frozen, 0.5)
    np.testing.assert_array_equal(elements.whole(elements.chosen(whole))[:12], whole[:12])
    assert np.count_nonzero(elements.mask) == (16 + 4) // 2 + 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"federation": {"strategy": "fedavg", "rounds": 3, "pruning": {"share": 0.5, "after": 3}}},
            "no round follows",
        ),
        ({"model": "logistic"}, "no convolution and no linear layer"),
        ({"privacy": {"record": {"noise_multiplier": 1.0}}}, "clips the gradients of whole layers"),
    ],
)
def test_what_cannot_be_pruned_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        medfed.check(task(4, pruning=PRUNING) | changed)
